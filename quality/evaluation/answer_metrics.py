"""Measures of one answer: what it contains, what it cites, and how candidates are ranked. Pure functions."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from common.citation_markers import split_at_citation_markers
from common.scripts import UNSPACED
from retrieval.chunking.sentences import sentence_spans
from retrieval.support.agreement import supports
from retrieval.support.statement import content_words

_WORD = re.compile(r"\w+")
_ARTICLES = frozenset(["a", "an", "the"])


def answer_words(text: str) -> list[str]:
    """Returns the words of a text as SQuAD compares them: in lower case, no punctuation, no articles.

    Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016).
    """
    return [word for word in _WORD.findall(text.casefold()) if word not in _ARTICLES]


def contains_form(answer: str, form: str) -> bool:
    """Whether an answer contains the words of a form one after another.

    A form without a word, or in a script that puts no spaces between words, is looked for verbatim.
    """
    answer, form = unicodedata.normalize("NFC", answer), unicodedata.normalize("NFC", form)
    if UNSPACED.search(form):
        return form.strip().casefold() in answer.casefold()
    wanted = answer_words(form)
    if not wanted:
        return bool(form.strip()) and form.strip().casefold() in answer.casefold()
    return f" {' '.join(wanted)} " in f" {' '.join(answer_words(answer))} "


def contains_any_part(answer: str, parts: Sequence[Sequence[str]]) -> bool:
    """Whether an answer contains an accepted form of at least one part, such as one item of a list."""
    return any(contains_form(answer, form) for part in parts for form in part)


def contains_every_part(answer: str, parts: Sequence[Sequence[str]]) -> bool:
    """Whether an answer contains an accepted form of each part; False without parts."""
    return bool(parts) and all(any(contains_form(answer, form) for form in part) for part in parts)


def token_f1(answer: str, ideals: Sequence[str]) -> float:
    """Returns the F1 of an answer's words and those of the nearest ideal answer, from 0 to 1.

    Rajpurkar et al. (2016): precision and recall of the multiset of words.
    """
    return max(
        (_f1(Counter(answer_words(answer)), Counter(answer_words(ideal))) for ideal in ideals), default=0.0
    )


def _f1(found: Counter[str], wanted: Counter[str]) -> float:
    common = (found & wanted).total()
    return 2 * common / (found.total() + wanted.total()) if common else 0.0


def citation_precision(cited: Collection[str], gold: Collection[str]) -> float:
    """Returns the share of the cited passages that are among the gold ones; NaN if nothing is cited."""
    distinct = set(cited)
    return len(distinct & set(gold)) / len(distinct) if distinct else float("nan")


def citation_recall(cited: Collection[str], gold: Collection[str]) -> float:
    """Returns the share of the gold passages that are cited; NaN if there are none."""
    wanted = set(gold)
    return len(set(cited) & wanted) / len(wanted) if wanted else float("nan")


def supported_share(answer: str, quotes: Sequence[str]) -> float:
    """Returns the share of an answer's sentences that one of its quotes supports; NaN without any.

    Sentences without a content word, such as "Yes.", are not counted.

    Args:
        answer: The answer, with citation markers.
        quotes: The quotes that it cites.
    """
    spans = [span for quote in quotes for span in {quote: None, **dict.fromkeys(_sentences(quote))}]
    said = [
        sentence
        for claim in split_at_citation_markers(answer)
        for sentence in _sentences(claim)
        if content_words(sentence)
    ]
    supported = [any(supports(sentence, span) for span in spans) for sentence in said]
    return sum(supported) / len(supported) if supported else float("nan")


def _sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


def average_precision(scores: Sequence[float], relevant: Sequence[bool]) -> float:
    """Returns the average precision of candidates ranked by score; ties keep their order.

    Raises:
        ValueError: No candidate is relevant, or there are not as many scores as candidates.
    """
    places = list(_relevant_places(scores, relevant))
    return sum(number / place for number, place in enumerate(places, 1)) / len(places)


def reciprocal_rank(scores: Sequence[float], relevant: Sequence[bool]) -> float:
    """Returns one over the place of the best relevant candidate; ties keep their order.

    Raises:
        ValueError: No candidate is relevant, or there are not as many scores as candidates.
    """
    return 1 / next(_relevant_places(scores, relevant))


def _relevant_places(scores: Sequence[float], relevant: Sequence[bool]) -> Iterator[int]:
    if len(scores) != len(relevant) or not any(relevant):
        raise ValueError(f"{len(scores)} scores of {len(relevant)} candidates, {sum(relevant)} relevant")
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return (place for place, index in enumerate(order, 1) if relevant[index])
