"""One pass for all metrics of many dialogues, by a model of transformers in this process."""
