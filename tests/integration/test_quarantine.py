"""What is not fit for training is kept; settings and licences judge anew without parsing; releases stay."""

import json
from pathlib import Path
from typing import Any

import pytest

from assets.lake.lake import Lake
from assets.lake.quarantine_decisions import record_quarantine_decisions
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.quarantine import (
    NothingToRelease,
    UnknownQuarantinedDocument,
    count_kept_out,
    find_quarantined,
    list_quarantined,
    release_quarantined,
    show_quarantined,
)
from orchestration.operations.runs import execute_run
from orchestration.settings import Settings, open_configured_lake

ASSETS = 'key:"bronze/raw_documents" or key:"silver/documents" or key:"silver/quarantine"'
SENTENCE = "The gate refuses a document whose digest is unknown to the lake, and says so in its report."
SYMBOLS = "\n".join(["%&/ (){} +*~# <>|"] * 20)


def rows(lake: Lake, table: str) -> list[dict[str, Any]]:
    return lake.query("select * from t", t=lake.delta(table)).to_pylist()


def run(settings: Settings) -> Lake:
    assert execute_run(settings, ASSETS, print).failures == []
    return open_configured_lake(settings)


def reasons(lake: Lake) -> dict[str, list[str] | None]:
    found = rows(lake, "silver.documents")
    assert all(each["training_fit"] == (each["training_unfit_reasons"] == []) for each in found)
    return {each["uri"].rpartition("/")[2]: each["training_unfit_reasons"] for each in found}


def quarantined(lake: Lake) -> dict[str, dict[str, Any]]:
    return {each["uri"].rpartition("/")[2]: each for each in rows(lake, "silver.quarantine")}


@pytest.mark.timeout(600)
def test_documents_are_judged_anew_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, settings = tmp_path / "corpus", Settings(home=tmp_path / "home")
    corpus.mkdir()
    texts = {
        "whole.txt": f"{SENTENCE}\n\n{SENTENCE}",
        "cut.txt": f"{SENTENCE}\n\nIt can be changed by the",
        "note.txt": "Buy milk",
        "symbols.txt": SYMBOLS,
        "empty.txt": "",
    }
    for name, text in texts.items():
        (corpus / name).write_text(text)
    settings.home.mkdir()
    registry = SourceRegistry(settings.sources_file)
    registry.add(Source(name="docs", location=str(corpus), license="mit"))
    lake = run(settings)
    assert reasons(lake) == {"whole.txt": [], "cut.txt": ["max_cut_off"], "note.txt": ["min_word_count"]}
    assert quarantined(lake).keys() == {"symbols.txt", "empty.txt"}

    # From here on nothing is parsed but what is decided about.
    parsed: list[str] = []

    def only_decided(batches: Any, **settings: Any) -> Any:
        from assets.parsing.parse import parse_document_batches

        for batch in batches:
            parsed.extend(uri.rpartition("/")[2] for uri in batch.column("uri").to_pylist())
            yield from parse_document_batches(iter([batch]), **settings)

    monkeypatch.setattr("assets.silver.parse_document_batches", only_decided)
    changed = {"licenses": ["Apache-2.0"], "max_cut_off": None}
    monkeypatch.setenv("HEADWATER_RECIPE__TRAINING", json.dumps(changed))
    strict = Settings(home=settings.home)
    assert reasons(run(strict)) == {
        "whole.txt": ["licence_not_allowed"],
        "cut.txt": ["licence_not_allowed"],
        "note.txt": ["licence_not_allowed", "min_word_count"],
    }
    registry.set_license("docs", "Apache-2.0 OR MIT")
    assert reasons(run(strict)) == {"whole.txt": [], "cut.txt": [], "note.txt": ["min_word_count"]}
    assert parsed == []

    # A decision has its documents parsed once more, and holds for what they say later.
    ids = {name: each["doc_id"] for name, each in quarantined(lake).items()}
    listed = {each.uri.rpartition("/")[2]: each for each in list_quarantined(strict)}
    assert listed["empty.txt"].stage == "extract"
    assert "fill it" in listed["empty.txt"].cure
    assert listed["symbols.txt"].reason.startswith("20 lines, 80 words; 100% of the words have neither")
    assert f"headwater quarantine release {ids['symbols.txt'][:12]}" in listed["symbols.txt"].cure
    for name in (ids["symbols.txt"], ids["symbols.txt"][:9], listed["symbols.txt"].uri):
        assert find_quarantined(strict, [name]) == [listed["symbols.txt"]]
        (shown,) = show_quarantined(strict, name)
        assert (shown["expectation"], shown["size_bytes"]) == ("min_alphanumeric_word_ratio", len(SYMBOLS))
    for name in ("nowhere", ""):
        with pytest.raises(UnknownQuarantinedDocument):
            find_quarantined(strict, [name])
    with pytest.raises(NothingToRelease, match=r"empty\.txt has no text to keep"):
        release_quarantined(strict, [ids["symbols.txt"], ids["empty.txt"]], print)
    assert lake.version("ops.quarantine_decisions") == 0
    assert count_kept_out(lake) == (2, 1)
    record_quarantine_decisions(lake, [ids["symbols.txt"]], "release")
    record_quarantine_decisions(lake, [ids["empty.txt"]], "rerun")
    lake = run(strict)
    assert sorted(parsed) == ["empty.txt", "symbols.txt"]
    assert quarantined(lake).keys() == {"empty.txt"}
    assert "min_alphanumeric_word_ratio" in (reasons(lake)["symbols.txt"] or [])
    # Made anew, with other settings of the parser.
    monkeypatch.setenv("HEADWATER_RECIPE__PARSER__TIMEOUT_S", "50")
    parsed.clear()
    (corpus / "symbols.txt").write_text(SYMBOLS[:-2])
    lake = run(Settings(home=settings.home))
    assert len(parsed) == 5
    assert reasons(lake).keys() == {"whole.txt", "cut.txt", "note.txt", "symbols.txt"}
