"""Checks the citations in a model's reply: each becomes a quote that supports the claim, or is removed."""

import re
from collections.abc import Sequence

from common.citation_markers import CITATION_MARKER
from inference.prompting.prompt_assembly import PromptPassage
from inference.prompting.types import Draft, Passage, Quote
from retrieval.chunking.sentences import sentence_spans
from retrieval.support.agreement import support

_WORD = re.compile(r"\w+")
_CLOSING = re.compile(r"[^\w\s(\[{‘“]*")  # what closes the sentence before: "." or ".)"
_ADDRESS = re.compile(
    r"!?\[([^\]]*)\]\([^)]*\)|\s*<?\b(?:[a-z][a-z0-9+.-]*://|www\.|mailto:)[^\s>)\]]*>?", re.I
)
_REFUSALS = re.compile(
    r"^\W*(?:not found|i (?:do not|don't|don’t) know|the passages (?:do not|don't|don’t))", re.I
)

_BARE_ANSWER = re.compile(r"\W*(?:yes|no)\W*", re.I)  # what follows it says why, and must be supported


def parse_cited_reply(reply: str, context: Sequence[PromptPassage], passages: Sequence[Passage]) -> Draft:
    """Returns a model's reply as a draft in which every citation is a verbatim sentence that supports it.

    Markers `[n]` cite passages for the words since the markers before. Of these, a sentence is kept if one of
    the passages has a sentence that supports it (`retrieval.support`), which is quoted. All else is left
    out, and so are addresses that are not in the quote: a passage may have ordered the model to write them.
    A reply of which nothing is left is replaced by a refusal.

    Args:
        reply: The text that the model generated.
        context: The passages as they were numbered in the prompt.
        passages: The chunks that the context was made from; quotes are spans of these.
    """
    reply = reply.encode("utf-8", "replace").decode()  # a service may send half a character
    if not reply.strip() or _REFUSALS.match(reply):
        return Draft("The passages found do not hold an answer.", outcome="refused")
    claims, rest = _claims(reply)
    numbers: dict[Quote, int] = {}
    parts: list[str] = []
    kept = False
    for words, cited in claims:
        closing = _closing(words)
        parts += [closing] if kept else []
        shown = [context[number - 1] for number in dict.fromkeys(cited) if 0 < number <= len(context)]
        text, quotes = _supported(words[len(closing) :], shown, passages)
        kept = bool(quotes)
        if kept:
            parts.append(text)
            parts += [f" [{numbers.setdefault(quote, len(numbers) + 1)}]" for quote in quotes]
    parts += [_closing(rest)] if kept else []
    if not numbers:
        return Draft(
            "The generator wrote an answer that the passages found do not support, so it is withheld.",
            outcome="refused",
        )
    return Draft("".join(parts).strip(), tuple(numbers))


def _claims(reply: str) -> tuple[list[tuple[str, list[int]]], str]:
    """Returns the words before each group of markers with the numbers cited, and what is after the last."""
    claims: list[tuple[str, list[int]]] = []
    position = 0
    for marker in CITATION_MARKER.finditer(reply):
        words = reply[position : marker.start()]
        if _WORD.search(words) or not claims:
            claims.append((words, []))
        claims[-1][1].extend(int(number) for number in re.findall(r"\d+", marker[1]))  # "… [1][2]" is one
        position = marker.end()
    return claims, reply[position:]


def _closing(text: str) -> str:
    found = _CLOSING.match(text)
    return found[0] if found else ""


def _supported(
    words: str, shown: Sequence[PromptPassage], passages: Sequence[Passage]
) -> tuple[str, tuple[Quote, ...]]:
    """Returns the sentences of a claim that passages support, with the quotes that do."""
    text, end = "", 0
    quotes: dict[Quote, None] = {}
    for start, stop in sentence_spans(words):
        sentence = words[start:stop]
        found = [
            quote
            for passage in shown
            if (quote := _supporting_quote(sentence, passage, passages))
            or (quote := _supporting_quote(_ADDRESS.sub(_link_words, sentence), passage, passages))
        ]
        if found or _BARE_ANSWER.fullmatch(sentence):
            quoted = "\n".join(passages[each.passage].text[each.start : each.end] for each in found)
            text += words[end:start] + _without_foreign_addresses(sentence, quoted)
            quotes |= dict.fromkeys(found)
        end = stop
    return text, tuple(quotes)


def _without_foreign_addresses(claim: str, quote: str) -> str:
    """Returns a claim without links and addresses that are not in its quotes; a link's own words stay."""
    return _ADDRESS.sub(lambda found: found[0] if found[0].strip() in quote else _link_words(found), claim)


def _link_words(address: re.Match[str]) -> str:
    return address[1] or ""


def _supporting_quote(claim: str, shown: PromptPassage, passages: Sequence[Passage]) -> Quote | None:
    """Returns the sentence of a passage's chunks that supports a claim best, or None."""
    best: tuple[float, Quote | None] = (0.0, None)
    for index in shown.members:
        passage = passages[index]
        named = f"{passage.title or ''}. {passage.heading or ''}"
        for start, end in sentence_spans(passage.text):
            share = support(claim, passage.text[start:end], named)
            if share > best[0]:
                best = share, Quote(index, start, end)
    return best[1]
