"""What several test files share: a short rubric, the command, a server, annotators, small tables of ratings."""
