"""Answers questions by quoting the sentences of the passages that are nearest to the question."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from pydantic import BaseModel, Field

from inference.prompting.prompt_assembly import distinct_passages
from inference.prompting.types import Draft, Passage, Quote
from retrieval.chunking.sentences import sentence_spans


class ExtractiveEncoder(Protocol):
    """An object that turns texts into unit vectors, such as `retrieval.embedding.embedder.Embedder`."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of documents' texts: float32 of shape (texts, dimension)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of questions: float32 of shape (texts, dimension)."""
        ...


class ExtractiveConfig(BaseModel):
    """The settings of the extractive engine: how sentences are chosen."""

    sentences: int = Field(default=3, ge=1)
    """The most sentences an answer quotes."""
    min_cosine: float = Field(default=0.45, ge=-1.0, le=1.0)
    """The least cosine of the question and the best sentence; below it the question is refused.

    Of the packaged model, measured on 276 questions over three texts of the chunking_evaluation set, eight
    passages each: 97.5% of questions whose text was there are answered, 3.6% of those asked of the others
    (at 0.40: 100% and 12.3%; at 0.50: 91.3% and 0.7%). It tells whether the subject is there.
    It does not tell whether a sentence on the right subject holds the answer: with the right sentences taken
    out, 89% were still answered from their neighbours. On the demo's corpus 93% of its 83 questions are
    answered and 2 of its 12 questions on other subjects."""
    margin: float = Field(default=0.1, ge=0.0)
    """How far the cosine of the other sentences may be below the best one's."""
    passages: int = Field(default=8, ge=1)
    """How many passages are read, best first, without those that repeat a better one. Each costs the time to
    embed its sentences."""


class ExtractiveEngine:
    """An engine that quotes the sentences that are nearest to the question, word for word."""

    name = "extractive"

    def __init__(self, encoder: ExtractiveEncoder, config: ExtractiveConfig | None = None) -> None:
        self._encoder = encoder
        self._config = config or ExtractiveConfig()

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Quotes up to `sentences` sentences, or refuses when none is near enough to the question."""
        quotes = [
            Quote(index, start, end)
            for index in distinct_passages(passages)[: self._config.passages]
            for start, end in sentence_spans(passages[index].text)
        ]
        if not quotes:
            return Draft("The passages found hold no text.", refused=True)
        texts = [" ".join(passages[q.passage].text[q.start : q.end].split()) for q in quotes]
        vectors = self._encoder.encode(texts)
        scores = vectors @ self._encoder.encode_queries([question])[0]
        # What repeats the question or only names the subject (a heading, a label) tells nothing.
        scores[[not _is_statement(text, question) for text in texts]] = -1.0
        if scores.max() < self._config.min_cosine:
            return Draft(
                "Nothing found in the documents speaks to this question clearly enough.", refused=True
            )
        chosen = _diverse(vectors, scores, self._config)
        text = " ".join(f"{texts[i]} [{number}]" for number, i in enumerate(chosen, 1))
        return Draft(text, tuple(quotes[i] for i in chosen))


_MIN_WORDS = 5
_REPEATED_COSINE = 0.9
"""A sentence with a higher cosine repeats one that is chosen already."""


def _is_statement(sentence: str, question: str) -> bool:
    return len(sentence.split()) >= _MIN_WORDS and not sentence.endswith("?") and sentence != question


def _diverse(vectors: np.ndarray, scores: np.ndarray, config: ExtractiveConfig) -> list[int]:
    """Returns the indices of the best sentences, best first, none repeating another."""
    floor = max(config.min_cosine, float(scores.max()) - config.margin)
    chosen: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] < floor or len(chosen) == config.sentences:
            break
        if all(float(vectors[i] @ vectors[j]) < _REPEATED_COSINE for j in chosen):
            chosen.append(int(i))
    return chosen
