"""Compares a question with sentences by their words, where a model's vectors can not."""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.language.words import split_words

_GRAMS = (2, 3)
_LENGTH_WEIGHT = 0.25
"""How much a sentence's length above the mean counts against it: a long one holds common words by chance."""
_ORDINARY_FEATURES = 100
"""Of a sentence of a line or two. Beside headings and labels, it is not long."""


class WordEvidence(NamedTuple):
    """How sentences compare with a question and with each other, by their words.

    Attributes:
        shares: The share of the question that each sentence holds, (sentences,) float32 from 0 to 1.
        vectors: Unit vectors, whose products are the similarities of two sentences: float32 of shape
            (sentences, features).
    """

    shares: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]


def compare_by_words(question: str, sentences: Sequence[str]) -> WordEvidence:
    """Returns which share of a question's words each sentence holds, rare words counting more.

    Languages inflect words, and put articles and particles on them: so words count as a whole and by their
    pairs and triples of characters, as in McNamee and Mayfield, "Character N-Gram Tokenization for European
    Language Text Retrieval" (2004). How rare each is, the sentences say (inverse document frequency); what
    none of them holds counts as much as what one does.

    Args:
        question: The question.
        sentences: The sentences, at least one.
    """
    features = [set(_features(sentence)) for sentence in sentences]
    held = Counter(feature for each in features for feature in each)
    asked = {
        feature: math.log((len(sentences) + 1) / (max(held[feature], 1) + 0.5))
        for feature in _features(question)
    }
    column = {feature: number for number, feature in enumerate(held)}
    vectors = np.zeros((len(sentences), max(len(column), 1)), dtype=np.float32)
    for row, each in enumerate(features):
        vectors[row, [column[feature] for feature in each]] = 1.0
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1.0)
    whole = sum(asked.values()) or 1.0
    mean = max(sum(map(len, features)) / len(features), _ORDINARY_FEATURES)
    shares = [
        sum(asked[feature] for feature in each & asked.keys())
        / (whole * max(1.0, 1.0 + _LENGTH_WEIGHT * (len(each) / mean - 1.0)))
        for each in features
    ]
    return WordEvidence(np.array(shares, dtype=np.float32), vectors)


def _features(text: str) -> Iterator[str]:
    for word in split_words(unicodedata.normalize("NFKC", text).casefold()):
        yield f" {word} "
        for size in _GRAMS:
            yield from (word[start : start + size] for start in range(max(len(word) - size, 0) + 1))
