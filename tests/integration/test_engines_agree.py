"""DuckDB and Spark give the same rows for every relation that the assets define, over random small lakes."""

import ast
import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
from both_engines import ROOT, BothEngines
from pyspark.sql import SparkSession
from test_near_duplicates import Corpus, Doc, evolve, follow, reference, vocabularies

from assets.dedup.components import define_components
from assets.lake.lake import Lake
from assets.lake.maintenance import erase_rows
from assets.lake.quarantine_decisions import record_quarantine_decisions
from assets.lake.tables import RAW_DOCUMENTS
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.splits import define_splits
from orchestration.operations.runs import execute_run
from orchestration.settings import Settings, open_configured_lake
from training.datasets.config import TrainingSetConfig

ASSETS = '+key:"gold/embeddings"'
LOCAL_ONLY = {
    ("assets/dedup/similarity.py", "_compared_here"),
    ("assets/dedup/similarity.py", "_similarity"),
    # Mining is matrix products in this process, whatever the size.
    ("assets/training_sets/examples.py", "define_training_examples"),
    ("assets/training_sets/examples.py", "_define_near_passages"),
    ("assets/training_sets/examples.py", "_define_near_texts"),
    ("assets/training_sets/examples.py", "_mined"),
    ("assets/training_sets/rated_answers.py", "define_rated_answers"),
    ("assets/training_sets/teachers.py", "define_taught_lists"),
}
"""Functions that define relations which Spark has no use for."""

MAIL = """From: a@example.org
To: b@example.org
Subject: {subject}
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

{text}
--b
Content-Type: text/plain
Content-Disposition: attachment; filename=note.txt

{attached}
--b--
"""


def sentences(rng: random.Random, base: list[str]) -> str:
    """Words that are often those of another text, with one of them replaced or none."""
    words = rng.choice(base).split()
    if rng.random() < 0.6:
        words[rng.randrange(len(words))] = rng.choice(["granite", "harbour", "lantern", "meadow"])
    return " ".join(words)


def change(rng: random.Random, base: list[str], corpus: Path, first: bool) -> None:
    """Writes, changes, touches and deletes files of both kinds in every folder."""
    for folder in ("open", "closed"):
        (corpus / folder).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            path = corpus / folder / f"{number}.md"
            if first or rng.random() < 0.4:
                path.write_text(f"# Number {number}\n\n{sentences(rng, base)}.\n")
            elif rng.random() < 0.3:
                path.touch()
            elif rng.random() < 0.2:
                path.unlink(missing_ok=True)
        (corpus / folder / "broken.pdf").write_bytes(b"%PDF-1.7\n" + rng.randbytes(8))
        mail = MAIL.format(subject=folder, text=sentences(rng, base), attached=sentences(rng, base))
        (corpus / folder / "letter.eml").write_text(mail)
    # Its sections stay and move, so that their vectors are kept.
    sections = "\n\n".join(f"## Section {n}\n\n{' '.join([text] * 8)}." for n, text in enumerate(base))
    (corpus / "open" / "long.md").write_text(
        f"# Long\n\n{'An introduction. ' * rng.randrange(9)}\n\n{sections}"
    )
    (corpus / "rows").mkdir(exist_ok=True)
    rows = [{"id": str(n), "text": sentences(rng, base)} for n in range(4) if first or rng.random() < 0.7]
    rows.append({"id": "always", "text": sentences(rng, base)})
    (corpus / "rows" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def register(settings: Settings, corpus: Path, groups: tuple[str, ...]) -> None:
    settings.sources_file.unlink(missing_ok=True)
    registry = SourceRegistry(settings.sources_file)
    registry.add(Source(name="open", location=str(corpus / "open")))
    registry.add(Source(name="closed", location=str(corpus / "closed"), groups=groups))
    registry.add(Source(name="rows", location=str(corpus / "rows"), text_column="text", id_column="id"))


def add_documents_with_splits(on: BothEngines) -> None:
    """Documents in clusters, some of which were given splits before, and one that was removed."""
    ids = [f"d{number}" for number in range(30)]
    on.add("documents", pa.table({"doc_id": ids, "tenant": ["t"] * len(ids)}))
    on.add(
        "duplicates",
        pa.table({"doc_id": ids[1:12], "canonical_id": [ids[n // 4 * 4 + 12] for n in range(11)]}),
    )
    splits = ["train", "validation", "test"] * 3
    on.add(
        "training_splits",
        pa.table({"doc_id": [*ids[3:11], "gone"], "tenant": ["t"] * 9, "split": splits}),
    )


def defining_places() -> dict[tuple[str, int], str]:
    """Every call in the assets that defines a relation: its file and first line, with the function's name."""
    places = {}
    for path in sorted((ROOT / "assets").rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name.startswith("assets/engine/") and "relations" in name:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef) or (name, function.name) in LOCAL_ONLY:
                continue
            for call in ast.walk(function):
                match call:
                    case ast.Call(func=ast.Attribute(attr="define" | "map_batches")):
                        places[name, call.lineno] = function.name
    return places


@pytest.mark.slow
def test_both_engines_give_the_same_rows_for_every_definition(
    spark: SparkSession, module_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(lake: Lake, local: bool) -> BothEngines:
        return BothEngines(lake.spark)

    monkeypatch.setattr("assets.engine.step.open_relations", both)
    monkeypatch.setattr("assets.bronze.open_relations", both)
    rng = random.Random(12)
    words = [chr(97 + n) * 2 + chr(97 + m) * 3 for n in range(20) for m in range(6)]
    base = [" ".join(rng.sample(words, 30)) for _ in range(5)]
    corpus, settings = module_folder / "corpus", Settings(home=module_folder / "home")
    settings.home.mkdir()

    change(rng, base, corpus, first=True)
    register(settings, corpus, ())
    assert execute_run(settings, ASSETS, print).failures == []
    change(rng, base, corpus, first=False)
    assert execute_run(settings, ASSETS, print).failures == []
    change(rng, base, corpus, first=False)
    register(settings, corpus, ("board",))  # no change of a file, and another of who may read it
    lake = open_configured_lake(settings)
    refused = lake.query("select doc_id from q", q=lake.delta("silver.quarantine"))["doc_id"].to_pylist()
    record_quarantine_decisions(lake, refused, "release")
    # A tenant's end deletes revisions; what its source still has comes back.
    assert erase_rows(lake, RAW_DOCUMENTS, "source", "rows", "removal")
    # No feed is small now: each engine reads the changes by itself.
    monkeypatch.setattr("assets.engine.step.LOCAL_BYTES", -1)
    assert execute_run(settings, ASSETS, print).failures == []

    # What a small lake has too few documents for: full buckets, and clusters that join and break.
    texts = vocabularies(rng)
    text = " ".join(rng.sample(words, 12))
    before: Corpus = {"first": Doc("elder", text, 1), "same": Doc("elder", text, 2)}
    for _ in range(3):
        before = evolve(rng, before, texts)
    # An older near-duplicate takes the place of a cluster's canonical document.
    after = evolve(rng, before, texts) | {"older": Doc("elder", f"{text} too", 0)}
    with BothEngines(spark) as on:
        assert follow(before, after, reference(before), on=on) == reference(after)
        path = [(f"{number:02}", f"{number + 1:02}") for number in rng.sample(range(40), 30)]
        on.add("edges", pa.table({"left_id": [a for a, _ in path], "right_id": [b for _, b in path]}))
        define_components(on, "found", "edges", in_memory_edges=0)
        add_documents_with_splits(on)
        define_splits(on, TrainingSetConfig(validation_share=0.3, test_share=0.3))

    places = defining_places()
    assert len(places) > 40
    missed = {place: function for place, function in places.items() if place not in BothEngines.compared}
    assert missed == {}
    without_rows = {
        places[place] for place, most in BothEngines.compared.items() if not most and place in places
    }
    assert without_rows == set()
