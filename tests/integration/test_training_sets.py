"""Training sets of a lake: what is in them, what is kept out, and what a change of the lake changes."""

import json
import pydoc_data.topics
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from lake_rows import write
from typer.testing import CliRunner

from assets.answers.batches import AnswerBatches
from assets.dagster.models import TRAINING_TENANTS
from assets.dedup.minhash import MinHashConfig, shingle_jaccard
from assets.lake.lake import Lake
from assets.lake.tables import TRAINING_EXAMPLES
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.checks import training_set_faults
from orchestration.cli.main import app
from orchestration.operations.ingest import ingest_and_release
from orchestration.operations.runs import RunFailed, execute_run
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings, open_configured_lake
from orchestration.tracing.nodes import TraceNode
from orchestration.tracing.tracer import trace_identity
from orchestration.training.datasets import list_datasets, make_dataset
from retrieval.store.postgres import Postgres
from training.alike import alike_to
from training.datasets import TrainingSet, open_dataset
from training.datasets.held_out import held_out_collection
from training.datasets.requests import DatasetRequests
from training.datasets.training_set import (
    SPLITS,
    DatasetHasRemovedDocuments,
    Split,
    chunk_texts,
    relevant_passages,
)
from training.jobs.learned import learned_of_tenants

TOPICS = dict(sorted(pydoc_data.topics.topics.items())[:48])
ASKED = "Boolean operations"
"""The title of a topic, which an evaluation question asks for."""
COPIED = sorted(TOPICS, key=lambda name: len(TOPICS[name]))[-4:]
"""The longest topics, of which there are near-duplicates."""
OWN = {"question": "Which lake is it?", "answer": "The lake of the tests, with documents about Python."}


def name_of(uri: str) -> str:
    return uri.rpartition("/")[2].removesuffix(".rst")


@pytest.fixture(scope="module")
def corpus(module_folder: Path) -> Path:
    folder = module_folder / "topics"
    folder.mkdir()
    for name, text in TOPICS.items():
        (folder / f"{name}.rst").write_text(text)
    # The same section in two documents that are no duplicates of one another.
    shared = " ".join(f"Word {number} of the notice that both documents end with." for number in range(12))
    for name in [*TOPICS][:10]:
        with (folder / f"{name}.rst").open("a") as file:
            file.write(f"\n\nNotice\n******\n\n{shared}\n")
    for name in COPIED:
        (folder / f"copy-{name}.rst").write_text(f"{TOPICS[name]}\nIt is a copy of {name}, made by hand.\n")
    return folder


@pytest.fixture(scope="module")
def settings(module_folder: Path, corpus: Path) -> Iterator[Settings]:
    """A state folder with a training set of the tenant default, beside documents that must not be in it."""
    made = Settings(home=module_folder / "state")
    made.home.mkdir()
    questions = module_folder / "questions.jsonl"
    questions.write_text(json.dumps({"question": ASKED, "uri": (corpus / "booleans.rst").as_uri()}))
    registry = SourceRegistry(made.sources_file)
    registry.add(Source(name="topics", location=str(corpus), license="PSF-2.0", questions=str(questions)))
    for name, tenant, groups in (("foreign", "other", ()), ("board", "default", ("board",))):
        folder = module_folder / name
        folder.mkdir()
        (folder / f"{name}.md").write_text(
            f"# About {name}\n\nThe secret of {name} is a word that is long.\n"
        )
        registry.add(Source(name=name, location=str(folder), tenant=tenant, groups=groups))
    ingest_and_release(made, print)
    own = module_folder / "own.jsonl"
    own.write_text(json.dumps(OWN) + "\n")
    make_dataset(made, "python", None, own, print)
    yield made
    Postgres(made.home, made.postgres).remove()


@pytest.fixture(scope="module")
def opened(settings: Settings) -> TrainingSet:
    return open_dataset(settings.datasets_folder, "python")


def rows(opened: TrainingSet, kind: str | None = None) -> list[dict[str, Any]]:
    found = [row | {"split": split} for split, table in opened.examples.items() for row in table.to_pylist()]
    return [row for row in found if kind in (None, row["kind"])]


def documents(lake: Lake) -> dict[str, dict[str, Any]]:
    query = "select doc_id, uri, tenant, text, title from d"
    return {row["doc_id"]: row for row in lake.query(query, d=lake.delta("silver.documents")).to_pylist()}


def examples(lake: Lake) -> dict[str, dict[str, Any]]:
    """The rows of the table by their ids."""
    found = lake.query("select * from e", e=lake.delta(TRAINING_EXAMPLES.name)).to_pylist()
    return {row["example_id"]: row for row in found}


def invoke(settings: Settings, *arguments: str) -> Any:
    done = CliRunner().invoke(
        app, [*arguments, "--json"], env={"HEADWATER_HOME": str(settings.home)}, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_there_are_all_kinds_of_examples_and_of_questions(opened: TrainingSet) -> None:
    header = opened.header
    assert set(header.kinds) == {"retrieval_pair", "ranked_list", "instruction", "domain_text"}
    assert set(header.query_kinds) == {"title", "keyword", "natural", "claim"}
    assert min(header.splits.values()) > 0
    assert header.splits["train"] > header.splits["test"]
    assert set(header.licences) == {"PSF-2.0", "unknown"}
    assert header.licences["unknown"] == 1, "the user's own"
    assert header.languages == ["en"]
    assert set(header.versions) >= {"silver.documents", "gold.chunks", "gold.training_examples"}


def test_every_text_is_that_of_its_chunk_and_document(settings: Settings, opened: TrainingSet) -> None:
    lake, known = open_configured_lake(settings), documents(open_configured_lake(settings))
    chunks = {
        row["chunk_id"]: row for row in lake.query("select * from c", c=lake.delta("gold.chunks")).to_pylist()
    }
    for row in rows(opened):
        if row["query_kind"] == "user":
            continue
        texts = [chunks[each]["text"] for each in row["chunk_ids"]]
        assert row["doc_ids"] == [chunks[each]["doc_id"] for each in row["chunk_ids"]]
        assert {known[each]["tenant"] for each in row["doc_ids"]} == {"default"}
        if row["kind"] == "retrieval_pair":
            assert row["negatives"] == texts[1:]
            assert len(row["scores"]) == len(texts)
        elif row["kind"] == "ranked_list":
            assert row["candidates"] == texts
            assert row["scores"] == sorted(row["scores"], reverse=True)
            assert 2 <= len(texts) <= settings.recipe.training_sets.candidates
            assert row["teacher"] == "fused"
        if row["kind"] == "domain_text" or row["query_kind"] in ("title", "keyword"):
            assert row["positive"] in texts


def test_a_negative_is_of_another_document_and_not_nearly_as_near_as_the_positive(
    settings: Settings, opened: TrainingSet
) -> None:
    config = settings.recipe.training_sets
    pairs = rows(opened, "retrieval_pair")
    assert sum(len(row["negatives"]) for row in pairs) > len(pairs)
    for row in pairs:
        assert len(row["negatives"]) <= config.negatives
        assert row["doc_ids"][0] not in row["doc_ids"][1:]
        assert row["positive"] not in row["negatives"]
        assert all(score <= config.positive_ratio * row["scores"][0] + 1e-6 for score in row["scores"][1:])


def test_what_duplicates_say_is_in_no_example_and_so_no_negative(
    settings: Settings, opened: TrainingSet
) -> None:
    lake = open_configured_lake(settings)
    names = {doc_id: name_of(row["uri"]) for doc_id, row in documents(lake).items()}
    found = lake.query("select doc_id, canonical_id from d", d=lake.delta("silver.duplicates")).to_pylist()
    clusters = {frozenset((names[row["doc_id"]], names[row["canonical_id"]])) for row in found}
    assert clusters >= {frozenset((name, f"copy-{name}")) for name in COPIED}
    left_out = {row["doc_id"] for row in found if row["doc_id"] != row["canonical_id"]}
    assert not [row for row in examples(lake).values() if left_out & {*row["doc_ids"]}]
    pairs = [(row["positive"], each) for row in rows(opened, "retrieval_pair") for each in row["negatives"]]
    texts = pa.chunked_array([pa.array([text for pair in pairs for text in pair], pa.large_string())])
    positives = 2 * np.arange(len(pairs))
    assert shingle_jaccard(texts, positives, positives + 1, MinHashConfig()).max() < 0.8


def test_every_example_names_the_versions_of_the_tables_that_it_is_made_of(
    settings: Settings, opened: TrainingSet
) -> None:
    named = {row["versions"] for row in examples(open_configured_lake(settings)).values()}
    [versions] = map(json.loads, named)
    assert set(versions) >= {"silver.documents", "gold.chunks", "gold.embeddings", "gold.training_splits"}
    assert versions.items() <= opened.header.versions.items()


def test_a_split_holds_whole_documents_and_training_names_no_held_out_one(opened: TrainingSet) -> None:
    made_of, named = defaultdict(set), defaultdict(set)
    for row in rows(opened):
        if row["kind"] != "ranked_list" and row["doc_ids"]:
            made_of[row["split"]].add(row["doc_ids"][0])
        named[row["split"]].update(row["doc_ids"])
    assert not made_of["train"] & made_of["test"]
    assert not made_of["train"] & made_of["validation"]
    assert not made_of["test"] & made_of["validation"]
    assert named["train"] <= made_of["train"]


def test_nothing_to_train_on_is_near_a_held_out_text_or_an_evaluation_question(opened: TrainingSet) -> None:
    train, held_out = set[str](), {ASKED}
    for row in rows(opened):
        texts = {row["question"], row["positive"]} - {None}
        if row["split"] == "train":
            train |= texts | {*row["negatives"], *row["candidates"]}
        else:
            held_out |= texts
    left, right = sorted(train), sorted(held_out)
    both = pa.chunked_array([pa.array([*left, *right], pa.large_string())])
    for place in range(len(left)):  # all with all
        others = np.arange(len(right)) + len(left)
        jaccard = shingle_jaccard(both, np.full(len(right), place), others, MinHashConfig())
        assert jaccard.max() < 0.8, (left[place], right[int(jaccard.argmax())])


def test_no_question_is_alike_on_two_sides_of_a_split(opened: TrainingSet) -> None:
    asked = {
        split: {row["question"] for row in rows(opened) if row["split"] == split and row["question"]}
        for split in SPLITS
    }
    held_from: dict[Split, list[Split]] = {"train": ["validation", "test"], "validation": ["test"]}
    for split, others in held_from.items():
        held = [ASKED, *(each for other in others for each in asked[other])]
        texts = [*held, *asked[split]]
        assert alike_to(texts, np.arange(len(texts)) < len(held)).sum() <= len(held) + 2, "another's template"


def test_the_chunk_that_a_claim_stands_in_is_relevant_and_nothing_that_holds_it_is_negative(
    settings: Settings, opened: TrainingSet
) -> None:
    chunks = chunk_texts(opened)
    claims = [row for row in rows(opened) if row["query_kind"] == "claim"]
    assert {row["kind"] for row in claims} == {"retrieval_pair", "ranked_list"}
    held_out, tested = held_out_collection(opened), 0
    names = {text: name for name, text in held_out.queries.items()}
    for row in claims:
        if row["kind"] == "retrieval_pair":
            source, others = chunks[row["chunk_ids"][0]], row["negatives"]
            assert relevant_passages(row, chunks) == [row["positive"], source]
            assert row["positive"] != source
        else:
            source, others = row["positive"], [each for each in row["candidates"] if each != row["positive"]]
            assert source in row["candidates"]
        assert row["question"] in " ".join(source.split())
        assert not [each for each in others if row["question"] in " ".join(each.split())]
        if row["split"] == "test":
            tested += 1
            relevant = held_out.relevant[names[row["question"]]]
            assert source in {held_out.documents[each].text for each in relevant}
    assert tested
    lists = learned_of_tenants(settings.datasets_folder, ["default"]).lists()
    of_claims = np.flatnonzero([each == "claim" for each in query_kinds(opened, lists.ids)]).tolist()
    assert of_claims
    for at in of_claims:
        right = [lists.passages[each] for each in lists.candidates[at][lists.relevant[at]]]
        assert any(lists.questions[at] in " ".join(each.split()) for each in right)


def query_kinds(opened: TrainingSet, ids: list[str]) -> list[str]:
    kinds = {row["example_id"]: row["query_kind"] for row in rows(opened)}
    return [kinds[each] for each in ids]


def test_what_is_left_out_stays_in_the_table_with_the_reason(settings: Settings) -> None:
    lake = open_configured_lake(settings)
    found = lake.query(
        "select left_out, split, question from e where left_out is not null",
        e=lake.delta(TRAINING_EXAMPLES.name),
    ).to_pylist()
    assert {row["left_out"] for row in found} >= {"near_held_out"}
    near = {row["split"] for row in found if row["left_out"] == "near_held_out"}
    assert "train" in near
    assert "test" not in near


def test_other_tenants_groups_and_unasked_tenants_are_not_in_it(
    settings: Settings, opened: TrainingSet
) -> None:
    lake = open_configured_lake(settings)
    texts = json.dumps(rows(opened)) + json.dumps(
        lake.query("select * from e", e=lake.delta(TRAINING_EXAMPLES.name)).to_pylist(), default=str
    )
    assert "The secret of" not in texts
    assert "glossary" in texts or "Python" in texts


def test_the_users_own_example_is_in_it(opened: TrainingSet) -> None:
    [row] = [row for row in rows(opened) if row["query_kind"] == "user"]
    assert (row["kind"], row["question"], row["positive"]) == ("instruction", *OWN.values())
    assert row["chunk_ids"] == row["doc_ids"] == []


def test_running_again_writes_no_commit_and_gives_the_same_snapshot(
    settings: Settings, opened: TrainingSet
) -> None:
    lake = open_configured_lake(settings)
    names = ("gold.training_splits", "gold.training_examples")
    before = [lake.version(name) for name in names]
    assert make_dataset(settings, "python", None, None, print) == opened.header
    assert [lake.version(name) for name in names] == before


def test_a_snapshot_is_listed_and_shown(settings: Settings, opened: TrainingSet) -> None:
    [listed] = invoke(settings, "datasets", "list")
    assert listed == invoke(settings, "datasets", "show", "python")
    assert listed["address"] == opened.header.address
    assert listed["removed_documents"] == []
    # Its tenant is a partition of what trains.
    with dagster_home_instance(settings) as instance:
        assert instance.get_dynamic_partitions(str(TRAINING_TENANTS.name)) == ["default"]


@pytest.mark.parametrize("form", ["jsonl", "parquet", "hf"])
def test_a_snapshot_is_exported_whole_and_private(
    settings: Settings, opened: TrainingSet, tmp_path: Path, form: str
) -> None:
    target = tmp_path / "it's exported"
    found = invoke(settings, "datasets", "export", opened.header.address, str(target), "--format", form)
    files = {Path(file) for file in found["files"]}
    assert files == {file for file in target.rglob("*") if file.is_file()}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    card = (target / "README.md").read_text()
    about = yaml.safe_load(card.split("---\n")[1])
    assert about["license"] == ["other", "unknown"]
    assert opened.header.digest in card
    for split in about["configs"][0]["data_files"]:
        file, expected = target / split["path"], opened.examples[split["split"]].to_pylist()
        if form == "jsonl":
            # splitlines would divide at the separators of Unicode that texts hold.
            read = [json.loads(line) for line in file.read_text().split("\n") if line]
        else:
            read = pq.read_table(file).to_pylist()
        assert read == expected
    done = CliRunner().invoke(
        app,
        ["datasets", "export", "python", str(target)],
        env={"HEADWATER_HOME": str(settings.home)},
    )
    assert "is there already" in str(done.exception)


def test_the_hubs_library_loads_the_exported_folder(
    settings: Settings, opened: TrainingSet, tmp_path: Path
) -> None:
    library = pytest.importorskip("datasets", reason="of the extra train")
    invoke(settings, "datasets", "export", "python", str(tmp_path / "hf"))
    loaded = library.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(loaded[split]) for split in loaded} == opened.header.splits
    assert loaded["train"][0] == opened.examples["train"].slice(0, 1).to_pylist()[0]


def kinds(nodes: list[TraceNode]) -> set[str]:
    return {node.kind for node in nodes}


def test_a_document_is_traced_to_its_examples_and_snapshots_and_an_example_back(
    settings: Settings, opened: TrainingSet
) -> None:
    row = next(row for row in rows(opened, "retrieval_pair") if row["negatives"])
    found = trace_identity(settings, row["doc_ids"][0], verify=False).forward
    assert {"training_example", "training_set"} <= kinds(found)
    assert row["example_id"] in {node.id for node in found}
    [snapshot] = [node for node in found if node.kind == "training_set"]
    assert snapshot.id == opened.header.address
    assert snapshot.details[row["split"]] >= 1
    back = trace_identity(settings, row["example_id"], verify=True)
    assert back.kind == "training_example"
    assert {node.id for node in back.backward} == set(row["chunk_ids"])
    assert back.verified


def test_a_foreign_row_is_found_by_the_check_wherever_it_comes_from(
    settings: Settings, tmp_path: Path
) -> None:
    lake = open_configured_lake(settings)
    [foreign] = lake.query(
        "select chunk_id, doc_id, text from c where tenant = 'other' limit 1", c=lake.delta("gold.chunks")
    ).to_pylist()
    version = lake.version(TRAINING_EXAMPLES.name)
    row = dict.fromkeys(TRAINING_EXAMPLES.schema.names) | {
        "example_id": "foreign",
        "kind": "domain_text",
        "split": "train",
        "tenant": "default",
        "chunk_ids": [foreign["chunk_id"]],
        "doc_ids": [foreign["doc_id"]],
        "negatives": [],
        "scores": [],
        "versions": "{}",
        "OpenLineage_RunId": "test",
    }
    pins = {
        name.replace(".", "__"): at for name, at in lake.inputs_of(TRAINING_EXAMPLES.name, version).items()
    }
    after = write(lake, TRAINING_EXAMPLES, [row], **pins)
    nothing = pa.table({"tenant": pa.array([], pa.string()), "question": pa.array([], pa.string())})
    faults = training_set_faults(lake, after, "default", nothing, settings.recipe.training_sets)
    assert [fault.check for fault in faults] == ["one_tenant"]
    assert "foreign" in faults[0].reason
    # The next run that has something to do makes the table what it is to be.
    lake.delta(TRAINING_EXAMPLES.name).restore(version)


def test_an_unrated_question_of_a_batch_is_not_trained_on(
    settings: Settings, opened: TrainingSet, tmp_path: Path
) -> None:
    asked = next(row["question"] for row in rows(opened, "retrieval_pair") if row["split"] == "train")
    (tmp_path / "asked.jsonl").write_text(json.dumps({"id": "1", "question": asked}) + "\n")
    AnswerBatches(settings.batches_dir).add("asked", tmp_path / "asked.jsonl")
    try:
        without = make_dataset(settings, "python", None, None, print)
        left = [row for row in examples(open_configured_lake(settings)).values() if row["question"] == asked]
        reasons = {row["left_out"] for row in left if row["split"] == "train"}
        assert "near_held_out" in reasons
        assert None not in reasons
        trained_on = open_dataset(settings.datasets_folder, without.address).examples["train"]
        assert asked not in trained_on["question"].to_pylist()
        assert invoke(settings, "datasets", "remove", without.address)["removed"]
    finally:
        shutil.rmtree(settings.batches_dir / "asked")
    assert make_dataset(settings, "python", None, None, print).digest == opened.header.digest


def test_a_removed_document_takes_its_examples_along_and_marks_the_snapshot(
    settings: Settings, opened: TrainingSet, corpus: Path
) -> None:
    row = next(row for row in rows(opened, "retrieval_pair") if row["split"] == "train" and row["negatives"])
    gone = row["doc_ids"][1]  # a negative's: the question's own examples must be mined anew
    lake = open_configured_lake(settings)
    before = examples(lake)
    Path(documents(lake)[gone]["uri"].removeprefix("file://")).unlink()
    run = execute_run(settings, None, print)
    assert run.failures == []
    after = examples(lake)
    assert not [each for each in after.values() if gone in each["doc_ids"]]
    assert row["example_id"] in after
    untouched = [
        each for each in before.values() if gone not in each["doc_ids"] and each["kind"] == "domain_text"
    ]
    assert all(after[each["example_id"]] == each for each in untouched), "not written again"
    with pytest.raises(DatasetHasRemovedDocuments, match="datasets snapshot python"):
        open_dataset(settings.datasets_folder, opened.header.address)
    [state] = list_datasets(settings)
    assert state.removed == [gone]
    without = make_dataset(settings, "python", None, None, print)
    assert without.digest != opened.header.digest
    assert not [
        each for each in rows(open_dataset(settings.datasets_folder, "python")) if gone in each["doc_ids"]
    ]


def test_a_changed_and_an_added_document_change_no_others_examples(settings: Settings, corpus: Path) -> None:
    lake = open_configured_lake(settings)
    before, known = examples(lake), documents(lake)
    last = lake.query(
        "select doc_id, max_by(chunk_id, ordinal) as chunk_id from c group by doc_id",
        c=lake.delta("gold.chunks"),
    ).to_pylist()
    naming = {
        row["doc_id"]: {each["doc_id"] for each in before.values() if row["chunk_id"] in each["chunk_ids"]}
        for row in last
    }
    # Of what ends a document others are reminded too: this one reminds the fewest.
    changed = min(naming, key=lambda doc_id: (not naming[doc_id], len(naming[doc_id]), doc_id))
    with Path(known[changed]["uri"].removeprefix("file://")).open("a") as file:
        file.write("\n\nLevees\n******\n\nA levee is a bank of earth that keeps a river out of a village.\n")
    (corpus / "orchard.rst").write_text(
        "Orchards\n********\n\nAn orchard is a field of trees that bear apples, pears or plums. In spring "
        "the farmer prunes each tree, so that light reaches every branch. Bees carry pollen between "
        "blossoms, and in autumn the apples are picked by hand or kept in a cool cellar.\n"
    )
    assert execute_run(settings, None, print).failures == []
    after, held = examples(lake), documents(lake)
    [added] = held.keys() - known.keys()
    there = set(lake.query("select chunk_id from c", c=lake.delta("gold.chunks"))["chunk_id"].to_pylist())
    anew = {changed} | {row["doc_id"] for row in before.values() if not there >= {*row["chunk_ids"]}}
    untouched = [key for key, row in before.items() if row["doc_id"] not in anew]
    assert len(untouched) > len(before) / 2
    # Whether a question is alike to a held-out one depends on what all documents are asked, and nothing else.
    marks = {row["left_out"] for key in untouched for row in (before[key], after[key])}
    assert marks <= {None, "near_held_out", "not_found"}
    # A row whose mark changed is written again, by another run.
    marked = {key for key in untouched if after[key]["left_out"] != before[key]["left_out"]}
    marked -= {key for key in marked if "not_found" in (before[key]["left_out"], after[key]["left_out"])}
    written = ("left_out", "OpenLineage_RunId")
    same = {
        key: after[key] | {name: before[key][name] for name in written if key in marked} for key in untouched
    }
    assert [key for key in untouched if same[key] != before[key]] == []
    assert {after[key]["doc_id"] for key in after.keys() - before.keys()} <= {added, *anew}
    of_added = [row for row in after.values() if row["doc_id"] == added]
    assert {"retrieval_pair", "domain_text"} <= {row["kind"] for row in of_added}
    of_changed = [row for row in after.values() if row["doc_id"] == changed]
    now = lake.query("select chunk_id, doc_id from c", c=lake.delta("gold.chunks")).to_pylist()
    of_now = {row["chunk_id"] for row in now if row["doc_id"] == changed}
    assert of_now == {row["chunk_ids"][0] for row in of_changed if row["kind"] == "domain_text"}
    assert of_now - {each for row in before.values() for each in row["chunk_ids"]}
    earlier = json.loads(next(iter(before.values()))["versions"])
    for key in after.keys() - before.keys():
        assert json.loads(after[key]["versions"])["gold.chunks"] > earlier["gold.chunks"]


def test_a_training_set_that_is_too_small_is_refused_with_what_helps(settings: Settings) -> None:
    with pytest.raises(RunFailed, match=r"minimum_size failed: tenant other: \d+ questions .* add documents"):
        make_dataset(settings, "small", "other", None, print)
    # It is no longer asked for: later runs do not fail for a set that was never made.
    assert DatasetRequests(settings.datasets_folder).tenants == ["default"]
    assert execute_run(settings, 'key:"gold/training_examples"', print).failures == []


def test_another_teacher_scores_the_lists_anew(settings: Settings) -> None:
    examples = 'key:"gold/training_examples"'

    def taught_by(teacher: str) -> Settings:
        # Few and short lists: a teacher reads every passage of each.
        few = {"teacher": teacher, "chunks_per_document": 1, "candidates": 2}
        sets = settings.recipe.training_sets.model_copy(update=few)
        recipe = settings.recipe.model_copy(update={"training_sets": sets})
        return settings.model_copy(update={"recipe": recipe})

    [failure] = execute_run(taught_by("reranker"), examples, print).failures
    assert "no reranker is configured: set HEADWATER_RERANKER__MODEL" in failure
    lake = open_configured_lake(settings)
    query = "select question, teacher, chunk_ids, scores from e where kind = 'ranked_list'"
    # Lists of before are those of the index as it was when their document was new.
    execute_run(taught_by("fused"), examples, print)
    fused = lake.query(query, e=lake.delta(TRAINING_EXAMPLES.name)).to_pylist()
    execute_run(taught_by("scorer"), examples, print)
    scored = lake.query(query, e=lake.delta(TRAINING_EXAMPLES.name)).to_pylist()
    assert {row["teacher"] for row in fused} == {"fused"}
    assert {row["teacher"] for row in scored} == {"scorer"}
    assert all(row["scores"] == sorted(row["scores"], reverse=True) for row in scored)
    # The candidates are the fused ranking's, in an order of the scorer's own.
    order = {(row["question"], each): at for row in fused for at, each in enumerate(row["chunk_ids"])}
    places = [[order[row["question"], each] for each in row["chunk_ids"]] for row in scored]
    assert any(each != sorted(each) for each in places)


def test_documents_of_a_licence_that_is_not_allowed_are_in_no_training_set(settings: Settings) -> None:
    recipe = settings.recipe.model_copy(
        update={"training": settings.recipe.training.model_copy(update={"licenses": ["MIT"]})}
    )
    strict = settings.model_copy(update={"recipe": recipe})
    run = execute_run(strict, None, print)
    assert any("minimum_size failed: tenant default: 0 questions" in failure for failure in run.failures)
    lake = open_configured_lake(strict)
    left = lake.query("select query_kind from e", e=lake.delta(TRAINING_EXAMPLES.name))
    assert set(left["query_kind"].to_pylist()) == {"user"}


def test_a_training_set_that_is_removed_takes_its_examples_along(settings: Settings) -> None:
    assert invoke(settings, "datasets", "remove", "python")["removed"]
    assert invoke(settings, "datasets", "list") == []
    assert execute_run(settings, 'key:"gold/training_examples"', print).failures == []
    lake = open_configured_lake(settings)
    assert (
        lake.query("select count(*) as n from e", e=lake.delta(TRAINING_EXAMPLES.name))["n"][0].as_py() == 0
    )
