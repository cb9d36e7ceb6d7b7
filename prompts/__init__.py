"""The rubrics and the texts of the prompt, as files: one folder a language, one YAML file a metric. No code."""
