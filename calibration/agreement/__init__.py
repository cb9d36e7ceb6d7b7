"""How well annotators agree with each other, how well a judge agrees with them, and what it may be used for."""
