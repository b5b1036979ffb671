from pathlib import Path
from types import SimpleNamespace

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import nDCG
from job_faults import train_until_killed, train_until_the_disk_is_full
from tiny_embedders import make_tiny_embedder, tiny_lists

from retrieval.embedding.model_folder import model_folder_digest, read_model_folder
from training.jobs import loop
from training.jobs.embedder import train_embedder
from training.jobs.loop import OutOfMemory, TrainingDiverged, TrainingOutcome
from training.jobs.losses import listwise_loss, matryoshka_dimensions
from training.jobs.network import EmbeddingNetwork, UnknownBase
from training.jobs.plan import EmbedderTraining, planned_steps
from training.jobs.ranked_lists import (
    NOTHING,
    RankedQuestion,
    TooFewExamples,
    ranked_lists,
    split_validation,
    target_probabilities,
)
from training.jobs.validation import ndcg_of_scores

TRAINING = EmbedderTraining(minutes=5, batch_questions=8, fresh_passages=4, learning_rate=2e-3, validations=4)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_embedder(tmp_path_factory.mktemp("base"))


def trained(
    base: Path, folder: Path, training: EmbedderTraining = TRAINING, said: list[str] | None = None
) -> tuple[EmbeddingNetwork, TrainingOutcome]:
    network = EmbeddingNetwork(base)
    train, validation = split_validation(tiny_lists(), share=0.25, most=8)
    lines = said if said is not None else []
    return network, train_embedder(network, train, validation, training, folder, lines.append)


def weights_of(network: EmbeddingNetwork) -> torch.Tensor:
    return torch.cat([each.detach().reshape(-1) for _, each in network.named_parameters()])


def test_an_embedder_learns_its_lists_and_is_written_as_a_folder_that_is_the_base_but_for_its_weights(
    tiny_base: Path, tmp_path: Path
) -> None:
    network, outcome = trained(tiny_base, tmp_path / "job")
    assert outcome.after > outcome.before + 0.1
    assert outcome.standing.losses[-1] < outcome.standing.losses[0]
    network.save(tmp_path / "model")
    made, base = read_model_folder(tmp_path / "model"), read_model_folder(tiny_base)
    assert made.files == base.files
    for name in made.files:
        same = (made.path / name).read_bytes() == (base.path / name).read_bytes()
        assert same == (not name.endswith(".safetensors")), name
    again = EmbeddingNetwork(tmp_path / "model")
    assert torch.equal(weights_of(again), weights_of(network))


def test_the_result_is_the_mean_of_the_base_and_the_best_weights(tiny_base: Path, tmp_path: Path) -> None:
    base = weights_of(EmbeddingNetwork(tiny_base))
    alone, best = trained(tiny_base, tmp_path / "alone", TRAINING.model_copy(update={"base_share": 0.0}))
    mixed, outcome = trained(tiny_base, tmp_path / "mixed", TRAINING.model_copy(update={"base_share": 0.25}))
    assert not torch.allclose(weights_of(alone), base)
    assert torch.allclose(weights_of(mixed), 0.25 * base + 0.75 * weights_of(alone), atol=1e-6)
    # The standing tells of the training's weights, the outcome of the result's.
    assert outcome.standing.scores == best.standing.scores
    assert best.after == best.standing.best_score
    assert outcome.before == best.before < outcome.after


@pytest.mark.parametrize(("before_s", "left"), [(60.0, "34 s"), (600.0, "4 s")])
def test_the_first_time_left_does_not_count_what_came_before_the_steps(
    before_s: float,
    left: str,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the minutes are over, it ends with the next validation."""
    now = [0.0]
    begin, step = loop._Loop._begin, loop._Loop._step

    def slow_begin(self: loop._Loop) -> float:
        now[0] += before_s  # the first vectors of all passages
        return begin(self)

    def second_of_step(self: loop._Loop, number: int) -> float:
        now[0] += 1.0
        return step(self, number)

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop._Loop, "_begin", slow_begin)
    monkeypatch.setattr(loop._Loop, "_step", second_of_step)
    with caplog.at_level("INFO", "common.progress"):
        trained(tiny_base, tmp_path)
    first = next(line for line in caplog.messages if "steps trained" in line)
    assert first.startswith(f"steps trained: 6 of 40 (15%), 1/s, about {left} left, loss ")


def test_a_job_that_was_killed_ends_with_the_same_model(tiny_base: Path, tmp_path: Path) -> None:
    whole, _ = trained(tiny_base, tmp_path / "whole")
    whole.save(tmp_path / "a")
    train_until_killed(lambda: trained(tiny_base, tmp_path / "killed"))
    said: list[str] = []
    resumed, outcome = trained(tiny_base, tmp_path / "killed", said=said)
    assert any("going on from the checkpoint after step 20 of 40" in line for line in said)
    resumed.save(tmp_path / "b")
    digests = {
        model_folder_digest(read_model_folder(tmp_path / name), tmp_path / "cache") for name in ("a", "b")
    }
    assert len(digests) == 1
    assert outcome.standing.step <= outcome.planned


def test_a_full_disk_leaves_the_checkpoint_before_as_it_was(tiny_base: Path, tmp_path: Path) -> None:
    assert train_until_the_disk_is_full(lambda: trained(tiny_base, tmp_path), tmp_path).step == 10
    _, outcome = trained(tiny_base, tmp_path)
    assert outcome.standing.step >= 20


def test_out_of_memory_halves_the_batch_and_says_so(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = EmbeddingNetwork.forward
    training = TRAINING.model_copy(update={"fresh_passages": 0})

    def small_machine(self: EmbeddingNetwork, texts: object, rows: np.ndarray) -> torch.Tensor:
        if torch.is_grad_enabled() and len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, texts, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddingNetwork, "forward", small_machine)
    said: list[str] = []
    _, outcome = trained(tiny_base, tmp_path / "halved", training, said)
    assert [line for line in said if "out of memory" in line] == [
        "out of memory in step 0: 4 questions at a time from here on, 2 times a step",
        "out of memory in step 0: 2 questions at a time from here on, 4 times a step",
    ]
    assert outcome.standing.micro_batch == 2

    def tiny_machine(self: EmbeddingNetwork, texts: object, rows: np.ndarray) -> torch.Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return forward(self, texts, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(EmbeddingNetwork, "forward", tiny_machine)
    said.clear()
    with pytest.raises(OutOfMemory, match="smaller base"):
        trained(tiny_base, tmp_path / "none", training, said)
    assert "values of layers are computed again" in said[-1]


def test_layers_that_are_computed_again_have_the_same_gradients(tiny_base: Path) -> None:
    network = EmbeddingNetwork(tiny_base)
    texts, _ = network.tokenize(["one word", "some more words than in the other text"], question=True)

    def gradients() -> torch.Tensor:
        weights = [each for _, each in network.named_parameters()]
        vectors = network.forward(texts, np.arange(2))
        return torch.cat([each.reshape(-1) for each in torch.autograd.grad(vectors[:, 0].sum(), weights)])

    kept = gradients()
    network.recompute()
    assert torch.equal(gradients(), kept)


def test_accumulated_gradients_are_those_of_the_whole_batch(tiny_base: Path) -> None:
    from training.jobs.embedder import _ListLearner

    train, validation = split_validation(tiny_lists(), share=0.25, most=8)
    training = TRAINING.model_copy(update={"fresh_passages": 0})
    gradients = []
    for micro_batch in (8, 3):
        network = EmbeddingNetwork(tiny_base)
        learner = _ListLearner(network, train, validation, training)
        learner.begin(None)
        learner.gradients(0, micro_batch)
        gradients.append(torch.cat([each.grad.reshape(-1) for _, each in network.named_parameters()]))  # type: ignore[union-attr]
    cosine = torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=0)
    assert float(cosine) > 0.999


def test_a_loss_that_is_no_number_names_the_step_and_the_examples(tiny_base: Path, tmp_path: Path) -> None:
    lists = tiny_lists()
    train, validation = split_validation(lists, share=0.25, most=8)
    train.scores[train.ids.index("q3"), 0] = np.nan
    with pytest.raises(TrainingDiverged, match=r"step \d+ is no number, at the examples q3:"):
        train_embedder(EmbeddingNetwork(tiny_base), train, validation, TRAINING, tmp_path, lambda line: None)


def test_passages_longer_than_the_model_reads_are_told_and_their_beginnings_learned(
    tiny_base: Path, tmp_path: Path
) -> None:
    words = [
        "harbour",
        "violin",
        "glacier",
        "turbine",
        "orchard",
        "comet",
        "saddle",
        "lantern",
        "pepper",
        "oar",
    ]
    texts = {f"p{n}": f"{word} " + "and so on " * (200 if n < 3 else 1) for n, word in enumerate(words)}
    lists = ranked_lists(
        [
            RankedQuestion(f"q{n}", word, [f"p{n}", "p0"], [0.9, 0.1], [f"p{n}"], True)
            for n, word in enumerate(words)
        ],
        texts,
    )
    said: list[str] = []
    train, validation = split_validation(lists, share=0.25, most=8)
    outcome = train_embedder(EmbeddingNetwork(tiny_base), train, validation, TRAINING, tmp_path, said.append)
    assert outcome.cut_off == 3
    assert any("3 of 10 passages are longer than the 64 tokens" in line for line in said)


@pytest.mark.parametrize("kind", ["missing", "not a model"])
def test_a_base_that_is_none_is_named(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "base"
    if kind == "not a model":
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"x")
    with pytest.raises(UnknownBase, match=r"base can not be trained: .*modules\.json"):
        EmbeddingNetwork(folder)


def test_no_document_and_no_question_in_other_words_is_on_both_sides_of_early_stopping() -> None:
    words = [
        a + b for a in ("gal", "mor", "tis", "ven", "lup", "rak") for b in ("ado", "ine", "usk", "oph", "emy")
    ]
    texts = {
        f"{word} {part}": f"{word} {part} {word[::-1]} of part {part}" for word in words for part in "ab"
    }
    texts |= {f"{word} copy": f"{texts[f'{word} a']}." for word in words[:10]}
    documents = {key: key if key.endswith("copy") else key.split()[0] for key in texts}
    asked = {f"{key} title": (f"{key.split()[0]} {key[-1]}{key[-1]}{key[-1]}{key[-1]}", key) for key in texts}
    asked |= {f"{word} may": (f"May a guest use the {word} without a key?", f"{word} a") for word in words}
    asked |= {f"{word} can": (f"Can a guest use the {word} without a key?", f"{word} b") for word in words}
    lists = ranked_lists(
        [
            RankedQuestion(name, question, [key], [1.0], [key], name.endswith("can"))
            for name, (question, key) in asked.items()
        ],
        texts,
        documents,
    )
    train, validation = split_validation(lists, share=0.25, most=8)
    assert {each.split()[0] for each in train.ids}.isdisjoint(each.split()[0] for each in validation.ids)
    assert 4 <= len(validation.ids) <= 16
    assert all(each.endswith("can") for each in validation.ids), "judged questions, where there are enough"
    turned = lists.rows(np.arange(len(lists.ids))[::-1])
    assert set(split_validation(turned, share=0.25, most=8)[1].ids) == set(validation.ids)
    one = ranked_lists(
        [RankedQuestion(f"q{n}", f"{word}?", [word], [1.0], [word], True) for n, word in enumerate(words)],
        {word: word for word in words},
        dict.fromkeys(words, "the only document"),
    )
    with pytest.raises(TooFewExamples, match="give questions about other documents"):
        split_validation(one, share=0.25, most=8)


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(TooFewExamples, match="training needs 8 at least"):
        split_validation(tiny_lists(7), share=0.25, most=8)
    train, validation = split_validation(tiny_lists(16), share=0.25, most=8)
    assert min(len(train.ids), len(validation.ids)) >= 4
    assert not set(train.questions) & set(validation.questions)


@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12),
    right=st.integers(0, 11),
    contrastive=st.booleans(),
)
@settings(max_examples=60)
def test_targets_are_a_distribution_that_keeps_the_teachers_order(
    scores: list[float], right: int, contrastive: bool
) -> None:
    scores = sorted(scores, reverse=True)
    keys = [f"p{number}" for number in range(len(scores))]
    relevant = keys[right : right + 1]
    lists = ranked_lists(
        [
            RankedQuestion("a", "?", keys, scores, relevant, True),
            RankedQuestion("b", "?", keys, scores, [], True),
        ],
        {key: key for key in [*keys, "more"]},
    )
    targets = target_probabilities(lists, contrastive)
    assert np.allclose(targets.sum(axis=1), 1, atol=1e-5)
    assert (targets >= 0).all()
    assert (np.diff(targets[1, : len(scores)]) <= 1e-6).all()
    if relevant:
        assert targets[0][lists.relevant[0]].sum() >= (1.0 if contrastive else 0.6) - 1e-5
    assert (targets[lists.candidates == NOTHING] == 0).all()


def test_a_listwise_loss_with_one_right_passage_is_that_of_info_nce() -> None:
    generator = torch.Generator().manual_seed(0)
    questions, passages = torch.randn(3, 32, generator=generator), torch.randn(5, 32, generator=generator)
    unit = torch.nn.functional.normalize
    right = torch.tensor([4, 0, 2])
    targets = torch.nn.functional.one_hot(right, 5).float()
    losses = listwise_loss(unit(questions, dim=-1), unit(passages, dim=-1), targets, 0.05)
    cosines = unit(questions, dim=-1) @ unit(passages, dim=-1).T
    expected = torch.nn.functional.cross_entropy(cosines / 0.05, right, reduction="none")
    assert torch.allclose(losses, expected, atol=1e-5)
    assert matryoshka_dimensions(384) == (384, 192, 96)


def test_the_loss_is_the_mean_of_those_of_all_matryoshka_lengths() -> None:
    generator = torch.Generator().manual_seed(1)
    unit = torch.nn.functional.normalize
    questions, passages = (unit(torch.randn(count, 256, generator=generator), dim=-1) for count in (3, 5))
    targets = torch.softmax(torch.randn(3, 5, generator=generator), dim=-1)
    assert matryoshka_dimensions(256) == (256, 128, 64)
    expected = [
        torch.nn.functional.cross_entropy(
            unit(questions[:, :length], dim=-1) @ unit(passages[:, :length], dim=-1).T / 0.05,
            targets,
            reduction="none",
        )
        for length in (256, 128, 64)
    ]
    losses = listwise_loss(questions, passages, targets, 0.05)
    assert torch.allclose(losses, sum(expected) / 3, atol=1e-5)  # type: ignore[arg-type]
    assert not torch.allclose(losses, expected[0], atol=1e-2)


def test_vectors_that_are_cut_short_become_better_as_well(tmp_path: Path) -> None:
    network, lists = EmbeddingNetwork(make_tiny_embedder(tmp_path, width=128)), tiny_lists()
    train, validation = split_validation(lists, share=0.25, most=8)
    relevant = np.zeros((len(train.ids), len(train.passages)), dtype=bool)
    row, column = np.nonzero(train.relevant)
    relevant[row, train.candidates[row, column]] = True

    def ndcg_by_length() -> dict[int, float]:
        questions, passages = (
            network.encode(network.tokenize(texts, question=asked)[0], "embedded")
            for texts, asked in ((train.questions, True), (train.passages, False))
        )
        unit = torch.nn.functional.normalize
        return {
            length: float(
                ndcg_of_scores(
                    (unit(questions[:, :length]) @ unit(passages[:, :length]).T).numpy(), relevant
                ).mean()
            )
            for length in matryoshka_dimensions(128)
        }

    before = ndcg_by_length()
    train_embedder(network, train, validation, TRAINING, tmp_path / "job", lambda line: None)
    after = ndcg_by_length()
    assert list(after) == [128, 64]
    assert all(after[length] > before[length] + 0.2 for length in after), (before, after)


def test_products_are_in_bfloat16_where_the_processor_has_instructions_for_it(tiny_base: Path) -> None:
    network, forms = EmbeddingNetwork(tiny_base), set[torch.dtype]()
    for layer in network.module.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(lambda _layer, _given, made: forms.add(made.dtype))
    texts, _ = network.tokenize(["where is the river"], question=True)
    vectors = network.forward(texts, np.arange(1))
    has_instructions = {"avx512_bf16", "amx_bf16", "bf16"} & set(Path("/proc/cpuinfo").read_text().split())
    fast = has_instructions or network.device.type == "cuda"
    assert forms == {torch.bfloat16 if fast else torch.float32}
    assert vectors.dtype == torch.float32
    assert {each.dtype for _, each in network.named_parameters()} == {torch.float32}


@given(st.integers(1, 40), st.integers(0, 2**32))
@settings(max_examples=30)
def test_ndcg_is_that_of_ir_measures(passages: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.permutation(4 * passages).reshape(4, passages).astype(np.float32)
    relevant = random.random((4, passages)) < 0.2
    relevant[:, random.integers(passages)] = True
    run = {str(q): {str(p): float(scores[q, p]) for p in range(passages)} for q in range(4)}
    qrels = {str(q): {str(p): 1 for p in np.flatnonzero(relevant[q])} for q in range(4)}
    expected = {each.query_id: each.value for each in ir_measures.iter_calc([nDCG @ 10], qrels, run)}
    assert np.allclose(ndcg_of_scores(scores, relevant), [expected[str(q)] for q in range(4)])


def test_more_minutes_are_more_steps_until_the_questions_are_used_up() -> None:
    steps = [planned_steps(minutes, (40, 1250), 2e11, 2e13) for minutes in (0.1, 5, 10, 10_000)]
    assert steps == sorted(steps)
    assert steps[0] == 40
    assert steps[-1] == 1250
