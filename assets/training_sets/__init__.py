"""Which examples can a model learn from? Splits, mining, and what keeps held-out texts out of training."""
