"""Evaluation questions made from documents: their headings, and sentences with words left out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quality.evaluation.questions import Question

_SHORTEST_SENTENCE = 6
_LONGEST_SENTENCE = 20
_SHORTEST_HEADING = 2
"""In words, like the two above."""
_LEFT_OUT = 3
"""Every so many words, one is left out of a sentence."""

SentenceSplitter = Callable[[str], list[tuple[int, int]]]
"""Takes a text; returns the `(start, end)` character span of each of its sentences."""
WordSplitter = Callable[[str], list[str]]
"""Takes a text; returns its words, also of scripts without spaces."""


@dataclass(frozen=True, slots=True)
class KnownItem:
    """A document that a question is made for.

    Attributes:
        doc_id: The document.
        heading: The path of headings above one of its chunks, as `A > B > C`; None without headings.
        text: The text of that chunk.
    """

    doc_id: str
    heading: str | None
    text: str


def known_item_questions(
    items: Sequence[KnownItem], limit: int, sentences: SentenceSplitter, words: WordSplitter
) -> list[Question]:
    """Returns a question for each document that one can be made for, at most `limit`.

    This is known-item search (Beitzel et al., 2003): weaker evidence than questions that people wrote, but
    enough to see an index that lost documents or whose vectors are wrong. A sentence as it stands would
    favour the search for words over that for meaning (docs/retrieval.md). So every other question is the
    innermost heading, unless several documents have it, and every other the chunk's first sentence without a
    third of its words; either takes the place of the other where a document has none.

    Args:
        items: The documents. Some chunks hold neither, so give more than questions are wanted.
        limit: The most questions.
        sentences: A function that splits a chunk's text into sentences.
        words: A function that splits a sentence or heading into words.
    """
    headings = [heading_question(item.heading or "", words) for item in items]
    held = Counter(headings)
    questions: list[Question] = []
    for item, heading in zip(items, headings, strict=True):
        if len(questions) == limit:
            break
        by_heading = heading if held[heading] == 1 else ""
        by_sentence = sentence_question(item.text, sentences, words)
        asked = by_heading or by_sentence if len(questions) % 2 else by_sentence or by_heading
        if asked:
            questions.append(Question(asked, (item.doc_id,)))
    return questions


def heading_question(heading: str, words: WordSplitter) -> str:
    """Returns the words of the innermost heading, after those around it while there are too few."""
    asked: list[str] = []
    for title in reversed(heading.split(" > ")):
        asked = words(title) + asked
        if len(asked) > _SHORTEST_HEADING:
            break
    return " ".join(asked) if len(asked) >= _SHORTEST_HEADING and any(map(str.isalpha, asked)) else ""


def sentence_question(text: str, sentences: SentenceSplitter, words: WordSplitter) -> str:
    """Returns the first sentence that is long enough, with every third word left out."""
    split = (words(text[start:end]) for start, end in sentences(text))
    usable = [sentence for sentence in split if len(sentence) >= _SHORTEST_SENTENCE]
    if not usable:
        return ""
    first = usable[0][:_LONGEST_SENTENCE]
    return " ".join(word for place, word in enumerate(first, 1) if place % _LEFT_OUT)
