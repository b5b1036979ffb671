"""The settings by which training examples are made, and what a training set must be."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

ListTeacher = Literal["fused", "scorer", "reranker"]
"""Who scores the passages of ranked lists."""


class TrainingSetConfig(BaseModel):
    """How examples are made of documents that are fit for training, and what a set of them must be.

    Which documents are fit, by their quality, language and licence, `HEADWATER_RECIPE__TRAINING__…` says.
    """

    chunks_per_document: int = Field(default=4, ge=1)
    """The most chunks of a document that questions are made of: one long manual must not be most of a set."""
    negatives: int = Field(default=7, ge=0)
    """The most hard negatives of a question: passages that rank high and do not answer it."""
    candidates: int = Field(default=16, ge=2)
    """The length of a ranked list."""
    teacher: ListTeacher = "fused"
    """Who scores and orders the passages of a ranked list: the fused ranking, which proposes them, the scorer
    of answers (English), or the configured reranker."""
    positive_ratio: float = Field(default=0.95, gt=0, le=1)
    """A passage with more than this share of the positive's cosine is no negative: it may answer as well
    (Moreira et al., "NV-Retriever", 2407.15831)."""
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    """The share of the clusters of documents whose examples are for validation."""
    test_share: float = Field(default=0.1, ge=0, lt=1)
    """The share whose examples are for tests."""
    near_jaccard: float = Field(default=0.8, gt=0, le=1)
    """The Jaccard similarity from which a text of the training split counts as one of the held-out ones, and
    a passage is no negative of a question about the other."""
    min_examples: int = Field(default=50, ge=1)
    """The least questions with a passage that the training split has."""
    max_query_kind_share: float = Field(default=0.8, gt=0, le=1)
    """The largest share of one kind of question: a model tuned on one kind gets worse at the others."""
    max_length_ratio: float = Field(default=2.0, ge=1)
    """How much longer the passages of one split are than those of another, at most, by their medians."""

    @model_validator(mode="after")
    def _leaves_a_training_split(self) -> Self:
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share + test_share is {self.validation_share + self.test_share:g}, which leaves "
                "nothing to train on: make them smaller"
            )
        return self
