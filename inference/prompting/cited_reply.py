"""Checks the citations in a model's reply: each becomes a quote that supports the claim, or is removed."""

import re
from collections import Counter
from collections.abc import Sequence

from inference.prompting.prompt_assembly import PromptPassage
from inference.prompting.types import Draft, Passage, Quote
from retrieval.chunking.sentences import sentence_spans

_MARKER = re.compile(r"\s*\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_WORD = re.compile(r"\w+")
_REFUSALS = re.compile(
    r"^\W*(?:not found|i (?:do not|don't|don’t) know|the passages (?:do not|don't|don’t))", re.I
)

# Words that any English sentence may have, so they support nothing.
_STOP_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be been but by can did do does for from had has have how i if in into is it its "
        "may not of on or s so such t than that the their then there these they this those to was we were "
        "what when where which who why will with would you your"
    )
)

_MIN_SUPPORT = 0.5
"""A sentence supports a claim when it has at least this share of the claim's content words."""


def parse_cited_reply(reply: str, context: Sequence[PromptPassage], passages: Sequence[Passage]) -> Draft:
    """Returns a model's reply as a draft in which every citation is a verbatim sentence that supports it.

    A marker `[n]` cites passage n for the words since the previous marker. It is kept if passage n has a
    sentence with at least half of the content words among these, and removed otherwise. A reply without any
    kept marker is replaced by a refusal, because nothing shows where it comes from.

    Args:
        reply: The text that the model generated.
        context: The passages as they were numbered in the prompt.
        passages: The chunks that the context was made from; quotes are spans of these.
    """
    if not reply.strip() or _REFUSALS.match(reply):
        return Draft("The passages found do not hold an answer.", refused=True)
    quotes: dict[Quote, int] = {}
    parts: list[str] = []
    position = 0
    claim = ""
    for marker in _MARKER.finditer(reply):
        between = reply[position : marker.start()]
        parts.append(between)
        # "… [1][2]": both are cited for the same words.
        claim = between if _WORD.search(between) else claim
        for number in dict.fromkeys(int(n) for n in re.findall(r"\d+", marker[1])):
            if not 0 < number <= len(context):
                continue
            quote = _supporting_quote(claim, context[number - 1], passages)
            if quote:
                parts.append(f" [{quotes.setdefault(quote, len(quotes) + 1)}]")
        position = marker.end()
    parts.append(reply[position:])
    if not quotes:
        return Draft(
            "The generator wrote an answer that the passages found do not support, so it is withheld.",
            refused=True,
        )
    return Draft("".join(parts).strip(), tuple(quotes))


def _supporting_quote(claim: str, shown: PromptPassage, passages: Sequence[Passage]) -> Quote | None:
    """Returns the sentence of a passage's chunks that supports a claim best, or None."""
    wanted = reply_content_words(claim)
    if not wanted:
        return None
    best: tuple[float, Quote] | None = None
    for index in shown.members:
        for start, end in sentence_spans(passages[index].text):
            held = reply_content_words(passages[index].text[start:end])
            support = sum((wanted & held).values()) / sum(wanted.values())
            if support >= _MIN_SUPPORT and (best is None or support > best[0]):
                best = support, Quote(index, start, end)
    return best[1] if best else None


def reply_content_words(text: str) -> Counter[str]:
    """Returns the content words of a text (without stop words), in lower case, with their counts."""
    return Counter(word for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS)
