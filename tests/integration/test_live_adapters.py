"""Adapters that are live answer their tenants' questions, alone and in batches; all others the base."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from live_models import log_of, make_adapter_live
from random_adapters import register_random_adapter
from tiny_generator import save_tiny_generator
from typer.testing import CliRunner

from assets.answers.batches import AnswerBatches
from assets.answers.stored import stored_batch
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from inference.engines.digest import model_files_digest
from inference.engines.generator import EngineConfig
from inference.engines.local import LocalEngine
from inference.engines.protocol import Adapter, AdapterChoice, EngineError, EnginePrompt, EngineReply
from inference.prompting.prompt_assembly import PromptConfig
from orchestration.answer_evaluation.engine_gate import gate_engine, promote_engine
from orchestration.cli.main import app
from orchestration.operations.ask import open_ask_service
from orchestration.operations.ingest import ingest_and_release
from orchestration.operations.runs import execute_answers_run
from orchestration.settings import Settings, open_configured_lake
from orchestration.tracing.tracer import trace_identity
from orchestration.training.generators import promote_adapter, roll_back_adapter
from orchestration.training.models import ModelNotPromoted
from quality.evaluation.answer_collection import load_answer_collection
from retrieval.embedding.model_signature import ModelNotTrusted
from retrieval.index.index import Index
from retrieval.index.release_log import Decision, ReleaseConflict, ReleaseHeld
from retrieval.store.postgres import Postgres
from training.registry.live_adapters import AdapterRecord, LiveAdapters, generator_name
from training.registry.versions import ModelAliases, ModelDecision, ModelRegistry

TENANTS = ("default", "acme", "beta")
QUESTION = "What is a glacier of ice?"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A state folder with a release of three tenants, and adapters of two of them over a tiny model."""
    home = tmp_path_factory.mktemp("adapters")
    model = save_tiny_generator(home / "generator", context_tokens=512)
    config = EngineConfig(model=model, max_new_tokens=4, context=PromptConfig(max_tokens=200))
    settings = Settings(home=home / "state", generator=config)
    settings.home.mkdir()
    for tenant in TENANTS:
        (home / tenant).mkdir()
        text = f"# Ice\n\nA glacier of {tenant} is a persistent body of dense ice that moves.\n"
        (home / tenant / "ice.md").write_text(text)
        source = Source(name=tenant, location=str(home / tenant), tenant=tenant)
        SourceRegistry(settings.sources_file).add(source)
    ingest_and_release(settings, lambda line: None)
    registry, digest = ModelRegistry(settings.models_folder), model_files_digest(model)
    for tenant in ("acme", "beta"):
        for seed in (1, 2):
            register_random_adapter(registry, model, digest, tenant, seed + len(tenant))
    promote_engine(settings, "a test")
    yield settings
    Postgres(settings.home, settings.postgres).stop()


def registry_of(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings.models_folder)


def approve(settings: Settings, address: str, against: str | None = None, questions: int | None = 8) -> None:
    registry = registry_of(settings)
    version = registry.find(address)
    registry.log_decision(
        version.name,
        ModelDecision(
            version=version.version,
            decision="approved",
            reason="better",
            against=against or version.lineage.base_digest,
            questions=questions,
            questions_digest="0123456789abcdef" if questions else None,
            decided_at=datetime.now(UTC),
        ),
    )


def batch(settings: Settings, name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Asks one question of each tenant in a batch, and returns the stored answers by tenant."""
    file = folder / f"{name}.jsonl"
    rows = [{"id": tenant, "question": QUESTION, "tenant": tenant} for tenant in TENANTS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    AnswerBatches(settings.batches_dir).add(name, file)
    assert execute_answers_run(settings, name, lambda line: None).failures == []
    rows = stored_batch(open_configured_lake(settings), name).to_pylist()
    return {row["tenant"]: row for row in rows}


def test_each_tenant_is_answered_with_its_live_adapter_and_others_by_the_base_which_says_so(
    settings: Settings, tmp_path: Path
) -> None:
    before = batch(settings, "before", tmp_path)
    assert {row["generator_adapter"] for row in before.values()} == {None}
    assert before["acme"]["chosen_because"] == "local:generator truncated"
    registry = registry_of(settings)
    with pytest.raises(ModelNotPromoted, match=r"not compared with its base, .*models compare"):
        promote_adapter(settings, "generator-acme@1", "first", lambda line: None)
    for address in ("generator-acme@1", "generator-beta@2"):
        approve(settings, address)
        served = promote_adapter(settings, address, "first", lambda line: None)
        assert served.pointer_seconds < 1
    after = batch(settings, "after", tmp_path)
    digests = {tenant: row["generator_adapter"] for tenant, row in after.items()}
    assert digests == {
        "default": None,
        "acme": registry.find("generator-acme@1").digest,
        "beta": registry.find("generator-beta@2").digest,
    }
    assert after["acme"]["chosen_because"] == "local:generator truncated with generator-acme@1"
    assert after["default"]["chosen_because"].endswith("by the base: the tenant default has no adapter")
    [engine] = [
        node
        for node in trace_identity(settings, after["acme"]["answer_id"], verify=True).backward
        if node.kind == "engine"
    ]
    assert [node.id for node in engine.children] == ["generator-acme@1"]
    with open_ask_service(settings) as service:
        answer = service.ask(QUESTION, "acme")
    assert answer.generator_adapter == digests["acme"]
    # The same batch asks again only those whose adapter is another now.
    approve(settings, "generator-acme@2", against=digests["acme"], questions=None)
    with pytest.raises(ModelNotPromoted, match=r"answers were not measured yet: .*models compare"):
        promote_adapter(settings, "generator-acme@2", "second", lambda line: None)
    approve(settings, "generator-acme@2", against=digests["acme"])
    promote_adapter(settings, "generator-acme@2", "second", lambda line: None)
    rolled = roll_back_adapter(settings, "generator-acme", "worse", lambda line: None)
    assert (rolled.version, rolled.tenant) == (1, "acme")
    aliases = registry.aliases("generator-acme")
    assert (aliases.live, aliases.previous) == (1, None)
    assert [each.decision for each in registry.decisions("generator-acme")] == [
        *("approved", "promoted", "approved", "approved", "promoted", "rolled_back"),
    ]


def test_a_second_rollback_goes_on_back_and_only_to_files_that_are_those_that_were_signed(
    settings: Settings,
) -> None:
    registry = registry_of(settings)
    first, second = (registry.version_path("generator-acme", number) for number in (1, 2))

    def promote(number: int) -> None:
        promote_adapter(settings, f"generator-acme@{number}", "again", lambda line: None)

    def back() -> int | None:
        return roll_back_adapter(settings, "generator-acme", "worse", lambda line: None).version

    with changed(second), pytest.raises(ModelNotTrusted, match="is not what was signed"):
        promote(2)
    assert registry.aliases("generator-acme").live == 1
    promote(2)
    assert registry.aliases("generator-acme") == ModelAliases(live=2, previous=1)
    with changed(first), pytest.raises(ModelNotTrusted, match="is not what was signed"):
        back()
    assert registry.aliases("generator-acme") == ModelAliases(live=2, previous=1)
    assert [back(), back()] == [1, None], "and not to the one that was gone back from"
    with pytest.raises(
        ModelNotPromoted, match=r"the base does: .*promote` has one of generator-acme@2, generator-acme@1"
    ):
        back()
    promote(1)
    assert registry.aliases("generator-acme") == ModelAliases(live=1)


@contextmanager
def changed(version: Path) -> Iterator[None]:
    """Has the weights of a version be others than those that were signed, for a while."""
    weights = version / "adapter_model.safetensors"
    signed = weights.read_bytes()
    weights.write_bytes(signed[:-1] + bytes([signed[-1] ^ 1]))
    try:
        yield
    finally:
        weights.write_bytes(signed)


def test_an_adapter_for_another_base_and_a_refused_one_are_not_promoted(
    settings: Settings, tmp_path: Path
) -> None:
    registry = registry_of(settings)
    other = save_tiny_generator(tmp_path / "other", context_tokens=128)
    version = register_random_adapter(registry, other, model_files_digest(other), "gamma", 9)
    approve(settings, version.address)
    with pytest.raises(ModelNotPromoted, match="train an adapter over this one"):
        promote_adapter(settings, version.address, "try", lambda line: None)
    refused = {"version": 1, "decision": "refused", "reason": "not better", "decided_at": datetime.now(UTC)}
    refused |= {"questions_digest": "0123456789abcdef"}
    base = registry.find("generator-beta@1").lineage.base_digest
    make_adapter_live(settings, "generator-beta", None)
    registry.log_decision("generator-beta", ModelDecision.model_validate({**refused, "against": base}))
    with pytest.raises(ModelNotPromoted, match="generator-beta@1 was refused: not better"):
        promote_adapter(settings, "generator-beta@1", "try", lambda line: None)
    # One that is live, and whose base the settings no longer name, fails its tenant's questions alone.
    make_adapter_live(settings, "generator-gamma", 1)
    choice = LiveAdapters(registry, log_of(settings)).of("gamma")
    assert choice is not None
    with open_ask_service(settings) as service:
        service._adapters = OneAdapter(choice)
        with pytest.raises(EngineError, match=r"trained over the base .*train an adapter over this one"):
            service.ask(QUESTION, "acme")


class OneAdapter:
    """The adapter of one tenant for every tenant."""

    def __init__(self, choice: AdapterChoice) -> None:
        self._choice = choice

    def of(self, tenant: str) -> AdapterChoice:
        return self._choice


def test_an_adapter_is_measured_beside_its_base_on_the_same_questions(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, generator = registry_of(settings), settings.generator
    live = registry.aliases("generator-acme").live
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    monkeypatch.setenv("HEADWATER_GENERATOR__MODEL", str(generator.model))
    monkeypatch.setenv("HEADWATER_GENERATOR__MAX_NEW_TOKENS", str(generator.max_new_tokens))
    monkeypatch.setenv("HEADWATER_GENERATOR__CONTEXT__MAX_TOKENS", str(generator.context.max_tokens))
    file = tmp_path / "mine.jsonl"
    rows = [{"question": QUESTION, "exact_answer": "ice"}, {"question": "Who moves?", "answerable": False}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def evaluated(*arguments: str) -> Any:
        command = ["evaluate-answers", str(file), "--tenant", "acme", "--json", *arguments]
        return json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)

    found = evaluated("--adapter", "generator-acme@2")
    assert list(found["engines"]) == ["extractive", "local:generator", "generator-acme@2"]
    assert found["engines"]["extractive"]["right"] == 1.0
    assert (found["comparison"]["a"], found["comparison"]["b"]) == ("generator-acme@2", "local:generator")
    assert found["comparison"]["right"]["difference"] == 0
    assert f"generator-acme@{live}" in evaluated()["engines"]
    assert list(evaluated("--adapter", "none")["engines"]) == ["extractive", "local:generator"]
    other = save_tiny_generator(tmp_path / "other", context_tokens=128)
    of_other = register_random_adapter(registry, other, model_files_digest(other), "delta", 9)
    for named, why in ((of_other.address, "trained over the base"), ("none@1", "no model 'none@1'")):
        command = ["evaluate-answers", str(file), "--adapter", named]
        assert why in str(CliRunner().invoke(app, command).exception)


def test_the_gate_on_engines_asks_a_local_model_with_the_adapter_that_answers_the_tenant(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveAdapters(registry_of(settings), log_of(settings)).of("acme")
    assert live is not None
    assert live.adapter is not None
    asked: list[tuple[str, Adapter | None]] = []
    answer_many = LocalEngine.answer_many

    def watched(engine: LocalEngine, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        asked.extend((engine.digest, each.adapted.adapter if each.adapted else None) for each in prompts)
        return answer_many(engine, prompts)

    monkeypatch.setattr(LocalEngine, "answer_many", watched)
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"question": QUESTION, "exact_answer": "ice"}) + "\n")
    longer = settings.model_copy(
        update={"generator": settings.generator.model_copy(update={"max_new_tokens": 5})}
    )

    def measured(tenant: str) -> bool:
        gated = gate_engine(longer, load_answer_collection(file), tenant, lambda line: None)
        return gated.evaluation is not None

    assert measured("acme")
    assert len({digest for digest, _ in asked}) == 2
    assert {adapter for _, adapter in asked} == {live.adapter}
    assert not measured("acme"), "the first verdict decides"
    make_adapter_live(settings, "generator-acme", None)
    assert measured("acme"), "another adapter is another measurement"
    make_adapter_live(settings, "generator-acme", registry_of(settings).find(live.adapter.address).version)
    assert not measured("acme")
    promote_engine(settings, "as it was")


def test_under_a_hold_no_adapter_is_promoted_or_rolled_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, registry = Index(Postgres(settings.home, settings.postgres)), registry_of(settings)
    approve(settings, "generator-beta@2")
    make_adapter_live(settings, "generator-beta", None)
    make_adapter_live(settings, "generator-acme", 1)
    index.hold(None, "ada", "an audit")
    try:
        with pytest.raises(ReleaseHeld, match="an audit"):
            promote_adapter(settings, "generator-beta@2", "try", lambda line: None)
        assert registry.aliases("generator-beta").live is None
        monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
        ran = CliRunner().invoke(app, ["models", "rollback", "generator-acme", "--reason", "try"])
        assert isinstance(ran.exception, ReleaseHeld)
        assert "an audit; nothing else goes live until `headwater hold --off`" in str(ran.exception)
        assert registry.aliases("generator-acme").live == 1
    finally:
        index.end_hold()


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(settings: Settings) -> None:
    registry, log, told = registry_of(settings), log_of(settings), list[str]()
    live = log.live("adapter", "generator-beta")

    def move(number: int) -> None:
        digest = registry.find(f"generator-beta@{number}").digest
        record = AdapterRecord(version=number).model_dump_json()
        decision = Decision("adapter", "generator-beta", "promoted", digest, "", "ada", record)
        try:
            log.move(decision, live.digest if live else None)
        except ReleaseConflict as error:
            told.append(str(error))

    threads = [threading.Thread(target=move, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1
    assert "judge it again" in told[0]


def test_the_adapter_of_all_tenants_answers_those_without_one_of_their_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, model = registry_of(settings), settings.generator.model
    assert model is not None
    register_random_adapter(registry, model, model_files_digest(model), None, 7)
    make_adapter_live(settings, "generator", 1)
    adapters = LiveAdapters(registry, log_of(settings))
    assert [adapters.of(tenant).said for tenant in ("default", "acme")] == [  # type: ignore[union-attr]
        "with generator@1",
        "with generator-acme@1",
    ]
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    monkeypatch.setenv("HEADWATER_GENERATOR__MODEL", str(model))
    arguments = ["models", "rollback", "generator", "--reason", "worse", "--json"]
    ran = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(ran.stdout)["version"] is None
    choice = adapters.of("default")
    assert choice is not None
    assert choice.adapter is None
    weights = registry.version_path("generator-acme", 1) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(EngineError, match="not what was signed"):
        adapters.of("acme")


def test_a_tenants_name_that_can_be_no_address_has_a_hash_in_it() -> None:
    assert generator_name("acme-2") == "generator-acme-2"
    assert generator_name("a/b") != generator_name("a b")
    assert generator_name("a/b").startswith("generator-")
