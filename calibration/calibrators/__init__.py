"""Maps from a judge's scores to the human scale: fitted, chosen by held-out items, and kept in a file."""
