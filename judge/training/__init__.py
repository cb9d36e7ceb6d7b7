"""A judge of one's own: a model trained on human ratings to answer with the distribution of its annotators."""
