"""Reads a question and candidates with the packaged model and the scorer on it."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.scoring.answer_scorer import PACKAGED_ANSWER_SCORER, load_answer_scorer
from inference.scoring.answer_type import holds_asked_type
from inference.scoring.missing_names import share_of_names
from retrieval.embedding.token_states import TokenEncoder, token_encoder_digest
from retrieval.language.identification import NO_LANGUAGE, UNDETERMINED, detect_language

_LANGUAGES = {"en", UNDETERMINED, NO_LANGUAGE}
"""Those that the packaged scorer was trained in; names and short texts have none."""
_RELEVANCE_WEIGHT = 0.7
"""How much the scorer's relevance counts beside what follows."""
_COSINE_WEIGHT = 8.0
"""How much a candidate's cosine to the question adds to its score."""
_TYPE_WEIGHT = 3.0
"""How much it adds that a candidate holds the type of answer that is asked for."""
_NAMES_WEIGHT = 3.0
"""How much it adds that a candidate holds all names of the question that any candidate does."""


@dataclass(frozen=True)
class ReadCandidates:
    """What the scorer says of candidates.

    Attributes:
        scores: How well each answers the question, (candidates,) float32; higher is better.
        answerability: The log-odds that each holds an answer at all, (candidates,) float32.
        cosines: The cosine of each to the question, (candidates,) float32.
        vectors: Unit vectors of the candidates, (candidates, dimension) float32.
    """

    scores: npt.NDArray[np.float32]
    answerability: npt.NDArray[np.float32]
    cosines: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]


class AnswerReader:
    """The scorer and the model whose token states it reads.

    Args:
        weights: The scorer's weights; the packaged ones unless given.
    """

    def __init__(self, weights: Path | None = None) -> None:
        """Loads the weights; the model that they read is loaded at the first use.

        Raises:
            BadAnswerScorer: The weights can not be loaded.
        """
        self._scorer = load_answer_scorer(weights or PACKAGED_ANSWER_SCORER)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of the weights and of the model whose token states they read."""
        return hashlib.sha256(f"{self._scorer.digest} {token_encoder_digest()}".encode()).hexdigest()

    @cached_property
    def _encoder(self) -> TokenEncoder:
        return TokenEncoder()

    def reads(self, question: str, texts: Sequence[str]) -> bool:
        """Returns whether the scorer was made for such a question: its words, and the texts' language."""
        return detect_language(" ".join(texts)) in _LANGUAGES and self._encoder.has_words_of(question)

    def read(
        self,
        question: str,
        candidates: Sequence[str],
        titles: Sequence[str | None] | None = None,
        titled: Collection[str] = (),
    ) -> ReadCandidates:
        """Returns what the scorer says of at least one candidate.

        Args:
            question: The question.
            candidates: The texts.
            titles: The title of each one's document; its words count as the candidate's own names.
            titled: The words of the question that titles name (`title_names`).
        """
        asked, read = self._encoder.encode([question]), self._encoder.encode(candidates)
        found = self._scorer.score(asked, read)
        cosines = read.vectors @ asked.vectors[0]
        named = [
            f"{title or ''} {text}"
            for title, text in zip(titles or [None] * len(candidates), candidates, strict=True)
        ]
        scores = (
            _RELEVANCE_WEIGHT * found.relevance
            + _COSINE_WEIGHT * cosines
            + _TYPE_WEIGHT * holds_asked_type(question, candidates)
            + _NAMES_WEIGHT * share_of_names(question, named, titled)
        ).astype(np.float32)
        return ReadCandidates(scores, found.answerability, cosines, read.vectors)
