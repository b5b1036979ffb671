"""How well does each passage answer the question? As well as the best of its parts."""

from collections.abc import Sequence

import numpy as np

from inference.scoring.answer_reader import AnswerReader
from inference.scoring.answer_units import answer_units
from inference.scoring.missing_names import title_names


def passage_scores(
    reader: AnswerReader, question: str, passages: Sequence[str], titles: Sequence[str | None]
) -> list[float] | None:
    """Returns the score of each passage, that of its best unit; higher is better.

    Args:
        reader: The scorer.
        question: The question.
        passages: The texts of at least one passage.
        titles: The titles of their documents.

    Returns:
        (passages,), comparable with one another; None if the scorer was not made for such a question.
    """
    if not reader.reads(question, passages):
        return None
    units = [
        # The question itself, where a passage holds it, is no answer to it.
        [text for unit in answer_units(passage) if (text := unit.text_of(passage)) != question] or [passage]
        for passage in passages
    ]
    read = reader.read(
        question,
        [text for of_passage in units for text in of_passage],
        [title for title, of_passage in zip(titles, units, strict=True) for _ in of_passage],
        title_names(question, titles, passages),
    )
    ends = np.cumsum([len(of_passage) for of_passage in units])
    return [float(of_passage.max()) for of_passage in np.split(read.scores, ends[:-1])]
