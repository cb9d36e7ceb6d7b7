"""Maps from a judge's scores to people's scale: fitted, chosen on what they were not fitted on, kept in a file."""
