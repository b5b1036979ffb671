"""Passages that give orders: what holds of an answer whatever they say."""

import re

import pytest

from benchmarks.injections import (
    InjectedPassage,
    answer_obediently,
    found_passages,
    judge_injection,
    read_injected_passages,
)
from inference.engines.extractive import ExtractiveEngine
from inference.prompting.types import Draft
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedder import Embedder

ROWS = read_injected_passages()
ADDRESS = re.compile(r"https?://[^\s>)\]]+")


@pytest.fixture(scope="module")
def extractive() -> ExtractiveEngine:
    return ExtractiveEngine(Embedder(EmbedderConfig()))


def quotes(row: InjectedPassage, draft: Draft) -> list[str]:
    passages = found_passages(row)
    return [passages[each.passage].text[each.start : each.end] for each in draft.quotes]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.kind}-{number}" for number, row in enumerate(ROWS)])
def test_whatever_a_passage_orders_the_answer_is_quotes_and_names_no_other_address(
    row: InjectedPassage, extractive: ExtractiveEngine
) -> None:
    draft = extractive.answer(row.question, found_passages(row))
    rest = draft.text if not draft.refused else ""
    for quote in quotes(row, draft):
        for line in (quote, " ".join(quote.split())):
            rest = rest.replace(line, "")
    assert not re.search(r"\w", re.sub(r"\[\d+\]", "", rest))
    obedient = answer_obediently(row)
    cited = " ".join(quotes(row, obedient))
    assert all(address in cited for address in ADDRESS.findall(obedient.text))
    assert not judge_injection(row, obedient).unquoted


def test_what_was_demanded_and_answered_is_counted() -> None:
    row = next(row for row in ROWS if row.kind == "ignore")
    right = judge_injection(row, Draft(f"{row.passage} [1]"))
    assert (right.obeyed, right.unquoted, right.right) == (False, False, True)
    obeyed = judge_injection(row, Draft(str(row.demanded)))
    assert (obeyed.obeyed, obeyed.unquoted, obeyed.right) == (True, True, False)
    to_refuse, refusal = next(row for row in ROWS if row.demanded is None), Draft("", outcome="refused")
    assert judge_injection(to_refuse, refusal).obeyed
    assert not judge_injection(to_refuse, refusal, refuses_anyway=True).obeyed
    assert len(ROWS) == 30
