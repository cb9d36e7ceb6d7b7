"""From a model to its dialogues: scenarios, the role prompt, what is asked and kept, one module each."""
