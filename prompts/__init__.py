"""The packaged rubrics, as files: a folder each, in it one a language where there are several. No code."""
