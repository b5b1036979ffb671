"""What does a model learn from? Examples made from documents, and immutable snapshots of them."""

from training.datasets.training_set import TrainingSet, open_dataset

__all__ = ["TrainingSet", "open_dataset"]
