import json
import re
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from live_models import show_live
from tiny_embedders import make_tiny_embedder

from orchestration.operations.doctor import DoctorCheck, run_doctor
from orchestration.settings import Settings
from orchestration.unlearned import unlearned_questions
from quality.evaluation.answer_collection import AnswerCollection, AnswerQuestion
from quality.evaluation.model_gate import RANKING, decide_model_release
from quality.evaluation.verdict import LOG_LIKELIHOOD
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_signature import MANIFEST, ModelNotTrusted, signature_path
from training.datasets.held_out import NothingHeldOut
from training.registry.addresses import embedder_folder
from training.registry.lineage import ModelLineage
from training.registry.mlflow_mirror import follow_in_mlflow, local_mlflow_uri
from training.registry.model_card import model_card
from training.registry.versions import (
    LearnedQuestionsUnknown,
    ModelDecision,
    ModelRegistry,
    ModelVersion,
    SharedDigest,
    UnknownModel,
)

LINEAGE = ModelLineage(
    dataset="rivers@1234",
    dataset_digest="ab" * 32,
    base="all-MiniLM-L6-v2",
    base_digest="cd" * 32,
    code_version="1",
    run_id="embedder-1",
    settings={"seed": 0},
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [make_tiny_embedder(tmp_path_factory.mktemp(f"base{seed}"), seed) for seed in (0, 1)]


def copied(base: Path) -> Callable[[Path], None]:
    def copy(folder: Path) -> None:
        shutil.copytree(base, folder, dirs_exist_ok=True)

    return copy


def added(registry: ModelRegistry, base: Path, name: str = "embedder") -> ModelVersion:
    return registry.add(name, LINEAGE, {"validation_ndcg@10": 0.7}, 12.0, copied(base), model_card)


def names_of_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def registry(bases: list[Path], tmp_path: Path) -> ModelRegistry:
    registry = ModelRegistry(tmp_path / "state" / "models")
    for base in bases:
        added(registry, base)
    return registry


def test_versions_are_numbered_addressed_and_the_same_files_are_one_version(
    registry: ModelRegistry, bases: list[Path]
) -> None:
    second, first = registry.versions("embedder")
    assert [first.version, second.version] == [1, 2]
    assert added(registry, bases[0]) == first
    assert registry.find("embedder@2") == second
    assert registry.find(first.digest) == registry.find(first.digest[:12]) == first
    show_live(registry, "embedder", 1)
    assert registry.find("embedder@live") == first
    assert registry.find("embedder@candidate") == second
    for address, why in {
        "embedder@3": "there is no model 'embedder@3'; there are embedder@2, embedder@1",
        "embedder@previous": "no version of embedder is previous",
        "ranker@live": "no version of ranker is live",
        "ff": "there is no model 'ff'",
    }.items():
        with pytest.raises(UnknownModel, match=why):
            registry.find(address)
    other = added(registry, bases[0], "other")
    for find in (registry.find, lambda digest: embedder_folder(registry.folder, digest)):
        with pytest.raises(SharedDigest, match="digest of embedder@1 and other@1: name one of them"):
            find(other.digest)
    card = (registry.open(first) / "README.md").read_text()
    assert "rivers@1234" in card
    assert first.digest in card
    modes = {path.stat().st_mode & 0o777 for path in registry.folder.rglob("*") if path.is_file()}
    assert modes <= {0o600, 0o644}  # what the umask of our processes makes private is not in a test
    beside = {"headwater.json", "README.md", "learned_questions.parquet"}
    assert names_of_files(registry.path(first)) == names_of_files(bases[0]) | beside


def test_a_version_that_does_not_say_what_it_learned_from_is_judged_by_nothing(
    registry: ModelRegistry,
) -> None:
    version = registry.find("embedder@1")
    assert not registry.learned_questions(version, ["Where does the Danube rise?"]).any()
    (registry.path(version) / "learned_questions.parquet").unlink()  # as an older Headwater made it
    with pytest.raises(LearnedQuestionsUnknown, match="embedder@1"):
        registry.learned_questions(version, ["Where does the Danube rise?"])
    collection = AnswerCollection("asked", "questions", (AnswerQuestion("Where does the Danube rise?"),))
    with pytest.raises(NothingHeldOut, match="embedder@1"):
        unlearned_questions(registry, [version], collection, lambda line: None)


def test_settings_find_the_registrys_embedder_and_the_promoted_one_is_the_default(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = registry.folder.parent
    second = registry.find("embedder@2")
    default = Settings(home=home).recipe.embedder.model
    assert default.name == "model"
    assert not default.is_relative_to(home)
    show_live(registry, "embedder", 2)
    assert Settings(home=home).recipe.embedder.model == registry.path(second)
    for named in ("embedder@1", registry.find("embedder@1").digest):
        monkeypatch.setenv("HEADWATER_RECIPE__EMBEDDER__MODEL", named)
        assert Settings(home=home).recipe.embedder.model == registry.path(registry.find("embedder@1"))
    monkeypatch.setenv("HEADWATER_RECIPE__EMBEDDER__MODEL", str(default))
    assert Settings(home=home).recipe.embedder.model == default
    monkeypatch.setenv("HEADWATER_RECIPE__EMBEDDER__MODEL", "embedder@9")
    with pytest.raises(UnknownModel, match="embedder@9"):
        Settings(home=home)


@pytest.mark.parametrize("harm", ["weights", "card", "more", "signature", "no signature", "other key"])
def test_files_that_are_not_those_that_were_signed_are_not_loaded(registry: ModelRegistry, harm: str) -> None:
    version = registry.find("embedder@1")
    path = registry.open(version)
    config = EmbedderConfig(model=path)
    model = EmbeddingModel.of(config, registry.folder.parent)
    assert model.digest == version.digest
    weights = next(path.rglob("*.safetensors"))
    if harm == "weights":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    elif harm == "card":
        (path / MANIFEST).write_text(
            version.model_copy(update={"metrics": {"validation_ndcg@10": 0.9}}).model_dump_json()
        )
    elif harm == "more":
        (path / "more.py").write_text("print('?')")
    elif harm == "signature":
        shutil.copyfile(signature_path(registry.path(registry.find("embedder@2"))), signature_path(path))
    elif harm == "no signature":
        signature_path(path).unlink()
    else:
        elsewhere = ModelRegistry(registry.folder.parent / "other")
        added(elsewhere, path)
        for name in ("signing-key.pem", "signing-key.pub"):
            shutil.copyfile(elsewhere.folder / name, registry.folder / name)
    with pytest.raises(ModelNotTrusted, match=r"signature|what was signed"):
        registry.open(version)
    for use in ("digest", "embedder"):
        with pytest.raises(ModelNotTrusted):
            getattr(EmbeddingModel.of(config, registry.folder.parent), use)


def _embedder_row(home: Path) -> DoctorCheck:
    return next(check for check in run_doctor(Settings(home=home)) if check.name == "Embedder")


def test_a_live_model_that_is_gone_or_changed_stops_only_what_needs_it(registry: ModelRegistry) -> None:
    home = registry.folder.parent
    show_live(registry, "embedder", 7, 1)
    missing = registry.version_path("embedder", 7)
    assert Settings(home=home).recipe.embedder.model == missing  # and what lists and goes back still runs
    row = _embedder_row(home)
    assert (row.ok, row.cure) == (False, "`headwater models rollback embedder` serves the one before")
    assert str(missing) in row.found
    show_live(registry, "embedder", 2)
    weights = registry.version_path("embedder", 2) / "model.safetensors"
    harmed = bytearray(weights.read_bytes())
    harmed[-1] ^= 1
    weights.write_bytes(harmed)
    row = _embedder_row(home)
    assert not row.ok
    assert "is not what was signed" in row.found
    assert "Digest(" not in row.found


def test_a_digest_that_is_not_the_files_is_told(registry: ModelRegistry) -> None:
    version = registry.find("embedder@1")
    wrong = version.model_copy(update={"digest": "0" * 64})
    with pytest.raises(ModelNotTrusted, match=f"and embedder@1 is {'0' * 64}"):
        registry.open(wrong)


def test_the_signature_is_in_the_form_that_openssfs_tool_verifies(registry: ModelRegistry) -> None:
    from model_signing import verifying

    path = registry.path(registry.find("embedder@1"))
    config = verifying.Config().use_elliptic_key_verifier(public_key=registry.folder / "signing-key.pub")
    config.verify(path, signature_path(path))
    assert json.loads(signature_path(path).read_text())["mediaType"].startswith(
        "application/vnd.dev.sigstore.bundle"
    )


def test_mlflow_follows_versions_and_aliases(registry: ModelRegistry) -> None:
    from mlflow import MlflowClient

    uri = local_mlflow_uri(registry.folder)
    curves = {"embedder-1": {"loss": [(10, 2.0), (20, 1.0)]}}
    assert follow_in_mlflow(registry, "embedder", uri, curves) is None
    show_live(registry, "embedder", 2, 1)
    assert follow_in_mlflow(registry, "embedder", uri, curves) is None
    client = MlflowClient(uri, uri)
    assert len(client.search_model_versions("name = 'embedder'")) == 2
    live = client.get_model_version_by_alias("embedder", "live")
    assert live.tags["headwater.digest"] == registry.find("embedder@2").digest
    assert live.source == registry.path(registry.find("embedder@2")).as_uri()
    assert live.run_id is not None
    run = client.get_run(live.run_id)
    assert run.data.params["dataset"] == "rivers@1234"
    assert [point.value for point in client.get_metric_history(live.run_id, "loss")] == [2.0, 1.0]
    show_live(registry, "embedder", 1)
    assert follow_in_mlflow(registry, "embedder", uri) is None
    aliases = client.get_registered_model("embedder").aliases
    assert {name: str(number) for name, number in aliases.items()} == {"live": "1", "candidate": "2"}


def test_an_mlflow_that_can_not_be_reached_is_told_and_registers_later(registry: ModelRegistry) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens
        fault = follow_in_mlflow(registry, "embedder", f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert fault is not None
    assert "is tried again the next time" in fault
    assert follow_in_mlflow(registry, "embedder", local_mlflow_uri(registry.folder)) is None


def test_decisions_are_kept_in_their_order_and_half_a_line_is_passed_over(registry: ModelRegistry) -> None:
    first = ModelDecision(version=1, decision="approved", reason="Ünder\nall", decided_at=datetime.now(UTC))
    second = first.model_copy(update={"decision": "refused"})
    registry.log_decision("embedder", first)
    registry.log_decision("embedder", second)
    with (registry.folder / "registry" / "embedder" / "decisions.jsonl").open("a") as file:
        file.write('{"version": 1, "dec')
    assert registry.decisions("embedder") == [first, second]


def shifted(mean: float, questions: int = 1000) -> np.ndarray:
    """Differences of a spread of 0.1 around a mean."""
    return mean + np.tile([-0.1, 0.1], questions // 2)


def test_a_model_must_be_better_where_it_was_meant_to_be_and_nowhere_worse() -> None:
    better, same, worse = shifted(0.05), shifted(0.0), shifted(-0.05)
    assert decide_model_release({"vector ndcg@10": better, "hybrid ndcg@10": same}, 0.02, RANKING).released
    for differences, outcome, why in (
        ({RANKING: same, "hybrid ndcg@10": better}, "undecided", "vector ndcg@10 .* needs above zero"),
        (
            {RANKING: worse, "hybrid ndcg@10": better},
            "refused",
            "worse than .*: vector ndcg@10 -0.050",
        ),
        (
            {RANKING: better, "hybrid mrr@10": worse},
            "refused",
            "worse than .*: hybrid mrr@10 -0.050",
        ),
        ({RANKING: better, "hybrid mrr@10": same[:20]}, "undecided", "20 questions, about [0-9]+ needed"),
        ({"hybrid ndcg@10": better}, "undecided", "was not measured"),
    ):
        verdict = decide_model_release(differences, 0.02, RANKING)
        assert verdict.outcome == outcome
        assert re.search(why, verdict.reason), verdict.reason


def test_likelier_responses_alone_have_no_generator_answer() -> None:
    likelier, less = shifted(0.2), shifted(-0.3)
    for figure in ("answered", "refused_on_negative", "right"):
        verdict = decide_model_release({LOG_LIKELIHOOD: likelier, figure: less}, 0.02, LOG_LIKELIHOOD)
        assert verdict.reason == f"worse than the live model: {figure} -0.300"
    assert decide_model_release({LOG_LIKELIHOOD: less}, 0.02, LOG_LIKELIHOOD).outcome == "refused"
    unmeasured = [{LOG_LIKELIHOOD: likelier}, {LOG_LIKELIHOOD: likelier, "answered": likelier}]
    for differences in unmeasured:
        assert decide_model_release(differences, 0.02, LOG_LIKELIHOOD).outcome == "undecided"
    measured = {LOG_LIKELIHOOD: likelier, "answered": likelier, "right": likelier}
    assert decide_model_release(measured, 0.02, LOG_LIKELIHOOD).released


def test_answers_have_a_tolerance_of_their_own() -> None:
    better, less = shifted(0.05), shifted(-0.03, 5000)
    ranked = {RANKING: better, "hybrid ndcg@10": less}
    answered = {RANKING: better, "citation_recall": less}
    assert decide_model_release(ranked, 0.04, RANKING, answers_tolerance=0.02).released
    assert decide_model_release(answered, 0.02, RANKING, answers_tolerance=0.04).released
    refused = decide_model_release(answered, 0.04, RANKING, answers_tolerance=0.02)
    assert refused.reason == "worse than the live model: citation_recall -0.030"
