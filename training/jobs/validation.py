"""The validation of an embedder while it is trained: how it ranks passages of questions that it never saw."""

import numpy as np
import numpy.typing as npt

from training.jobs.network import EmbeddingNetwork, TokenizedTexts
from training.jobs.ranked_lists import NOTHING, RankedLists

_HARDEST = 8
"""The first passages of each list, by the teacher, are those that the right ones must outrank."""
_CUT = 10


class ListValidation:
    """nDCG@10 over the right and the hardest passages of all validation questions together.

    Both sides are embedded anew each time: a score by old vectors would not be the model's.

    Args:
        network: The network, as it is when `score` is called.
        lists: The questions.
        passages: All passages as tokens.
    """

    def __init__(self, network: EmbeddingNetwork, lists: RankedLists, passages: TokenizedTexts) -> None:
        self._network = network
        self._questions, _ = network.tokenize(lists.questions, question=True)
        hard = lists.candidates[:, :_HARDEST]
        self._pool = np.unique(np.concatenate([hard[hard != NOTHING], lists.candidates[lists.relevant]]))
        lengths = passages.lengths[self._pool]
        starts = passages.offsets[self._pool]
        ids = np.concatenate(
            [passages.ids[at : at + length] for at, length in zip(starts, lengths, strict=True)]
        )
        self._passages = TokenizedTexts(ids, np.concatenate([[0], np.cumsum(lengths)]))
        self._relevant = np.zeros((len(lists.ids), len(self._pool)), dtype=bool)
        row, column = np.nonzero(lists.relevant)
        self._relevant[row, np.searchsorted(self._pool, lists.candidates[row, column])] = True

    def score(self) -> float:
        """Returns the mean nDCG@10, from 0 to 1."""
        questions = self._network.encode(self._questions, "validation questions embedded")
        passages = self._network.encode(self._passages, "validation passages embedded")
        return float(ndcg_of_scores((questions @ passages.T).numpy(), self._relevant).mean())


def ndcg_of_scores(
    scores: npt.NDArray[np.float32], relevant: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Returns nDCG@10 of each question (Järvelin and Kekäläinen, 2002), with judgements of yes and no.

    Args:
        scores: (questions, passages).
        relevant: (questions, passages); each question has a right one.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_CUT]
    discounts = 1.0 / np.log2(np.arange(2, _CUT + 2))
    gained = (np.take_along_axis(relevant, best, axis=1) * discounts[: best.shape[1]]).sum(axis=1)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(relevant.sum(axis=1), _CUT)]
    found: npt.NDArray[np.float64] = gained / ideal
    return found
