"""Trains the answer scorer: `python -m tools.scorer_training.train --medquad DIR --out FILE`.

It can be interrupted: token states and checkpoints are kept in the working folder, and the same call goes on
from them. What the packaged weights were trained on is in `inference/scoring/ANSWER_SCORER.md`.
"""

import argparse
import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from retrieval.embedding.token_states import TokenEncoder, TokenStates
from tools.scorer_training.documentation_questions import (
    DocumentedProgram,
    ask_heading,
    read_documentation,
)
from tools.scorer_training.medquad_questions import (
    MedQuadDocument,
    ask_cloze,
    ask_section,
    read_medquad,
)
from tools.scorer_training.network import AnswerNetwork, pair_batch
from tools.scorer_training.synthetic_facts import AskedFact, invent_asked_fact
from training.alike import fingerprints
from training.registry.learned_texts import scorer_questions_file, write_fingerprints

_HELD_OUT_SHARE = 0.1
_CHECKPOINT_STEPS = 250
_NEAR_SENTENCES = 12
"""Sentences that follow one another, of which a cloze question asks for one."""
_SHARES = {
    "fact": 0.25,
    "section": 0.30,
    "heading": 0.25,
    "cloze": 0.10,
    "documentation": 0.10,
}
"""How many of the questions are of which kind: invented, from MedQuAD's answers, headings of
documentation, and cloze questions from the sentences of both."""
_OF_DOCUMENTATION = ("heading", "documentation")
_ASKED_BY_PEOPLE = ("section", "heading")
"""The kinds whose questions and answers are real: by them the step is chosen at which training stops."""
_AVERAGED_SHARE = 0.99
"""What averaged weights keep at a step (Izmailov et al., "Averaging Weights Leads to Wider Optima", 2018)."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the scorer is trained.

    Attributes:
        questions: Questions to train on.
        held_out_questions: Questions about other documents, by which the step is chosen at which training
            stops, and as many about still others, on which the scorer is measured.
        epochs: How often each question is seen.
        batch_questions: Questions of one step.
        learning_rate: The highest, of a one-cycle schedule.
        order_weight: The weight of the listwise loss beside that of answerability.
        seed: The seed of everything.
    """

    questions: int = 1200
    held_out_questions: int = 300
    epochs: float = 2.0
    batch_questions: int = 8
    learning_rate: float = 1.5e-3
    order_weight: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class TrainingSet:
    """Questions, and the states of their texts.

    Attributes:
        kinds: The kind of each question.
        rows: Each as the places of its question, of what answers it, and of what does not.
        states: The token states of all texts.
        digest: SHA-256 of the texts and rows.
    """

    kinds: list[str]
    rows: list[tuple[int, list[int], list[int]]]
    states: TokenStates
    digest: str


def ask_questions(
    count: int,
    documents: Sequence[MedQuadDocument],
    programs: Sequence[DocumentedProgram],
    seed: int,
) -> list[tuple[str, AskedFact]]:
    """Returns questions of all kinds with their kind, each with two candidates or more that do not answer."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    texts = {
        "cloze": [[each for _, _, text in document.sections for each in text] for document in documents],
        "documentation": [program.sentences for program in programs],
    }
    texts = {kind: [each for each in long if len(each) > _NEAR_SENTENCES] for kind, long in texts.items()}

    def ask_near(kind: str) -> AskedFact | None:
        sentences = rng.choice(texts[kind])
        first = rng.randrange(len(sentences) - _NEAR_SENTENCES)
        return ask_cloze(sentences[first : first + _NEAR_SENTENCES], rng)

    ask: dict[str, Callable[[], AskedFact | None]] = {
        "fact": lambda: invent_asked_fact(rng),
        "section": lambda: ask_section(documents, rng),
        "heading": lambda: ask_heading(programs, rng),
    }
    shares = {
        kind: share
        for kind, share in _SHARES.items()
        if (programs or kind not in _OF_DOCUMENTATION) and texts.get(kind, True)
    }
    asked: list[tuple[str, AskedFact]] = []
    while len(asked) < count:
        kind = rng.choices(list(shares), list(shares.values()))[0]
        fact = ask[kind]() if kind in ask else ask_near(kind)
        if fact is not None and len(fact.other) > 1:
            asked.append((kind, fact))
    return asked


def build_training_set(
    asked: Sequence[tuple[str, AskedFact]], encoder: TokenEncoder, work: Path, progress: Callable[[str], None]
) -> TrainingSet:
    """Returns questions with their texts' states, which are kept in `work` by their digest."""
    places: dict[str, int] = {}

    def place(text: str) -> int:
        return places.setdefault(text, len(places))

    rows = [
        (place(fact.question), [place(each) for each in fact.answering], [place(each) for each in fact.other])
        for _, fact in asked
    ]
    digest = hashlib.sha256(json.dumps([list(places), rows]).encode()).hexdigest()
    kept = work / f"states-{digest[:16]}.npz"
    if kept.is_file():
        states = TokenStates(**np.load(kept))
    else:
        progress(f"reading {len(places)} texts")
        states = encoder.encode(list(places))
        np.savez(kept, **{name: getattr(states, name) for name in TokenStates.__dataclass_fields__})
    return TrainingSet([kind for kind, _ in asked], rows, states, digest)


def token_rarity(states: TokenStates, vocabulary: int) -> npt.NDArray[np.float32]:
    """Returns how rare each token of a vocabulary is among texts, from 0 in all of them to 1 in none."""
    texts = np.repeat(np.arange(len(states.lengths)), states.lengths)
    pairs = np.unique(np.stack([texts, states.ids]), axis=1)
    held = np.bincount(pairs[1], minlength=vocabulary)
    return (np.log((len(states.lengths) + 1) / (held + 1)) / np.log(len(states.lengths) + 1)).astype(
        np.float32
    )


def group_losses(
    network: nn.Module, data: TrainingSet, chosen: Sequence[int], rarity: npt.NDArray[np.float32]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns scores, labels and groups of the candidates of some questions, and their two losses."""
    pairs = [
        (question, candidate, label, group)
        for group, index in enumerate(chosen)
        for question, answering, other in [data.rows[index]]
        for label, candidates in ((1, answering), (0, other))
        for candidate in candidates
    ]
    questions, candidates, labels, groups = map(np.array, zip(*pairs, strict=True))
    scores = network(pair_batch(data.states, questions, candidates, rarity))
    label, group = torch.from_numpy(labels).float(), torch.from_numpy(groups)
    answerable = functional.binary_cross_entropy_with_logits(scores[:, 1], label)
    # The listwise loss of Cao et al., "Learning to Rank" (2007), over each question that has an answer.
    order = [
        -(scores[mine, 0].log_softmax(0) * label[mine]).sum() / label[mine].sum()
        for mine in (group == each for each in range(len(chosen)))
        if label[mine].sum() > 0
    ]
    listwise = torch.stack(order).mean() if order else scores.new_zeros(())
    return scores, label, group, torch.stack([answerable, listwise])


def measure(
    network: nn.Module, data: TrainingSet, rarity: npt.NDArray[np.float32]
) -> dict[str, dict[str, float]]:
    """Returns by kind how often an answering candidate is first, and the area under the curve of refusal."""
    network.eval()
    first: dict[str, list[float]] = {}
    best: dict[str, list[tuple[float, bool]]] = {}
    with torch.inference_mode():
        for index, kind in enumerate(data.kinds):
            scores, label, _, _ = group_losses(network, data, [index], rarity)
            best.setdefault(kind, []).append((float(scores[:, 1].max()), bool(label.sum() > 0)))
            if label.sum() > 0:
                first.setdefault(kind, []).append(float(label[scores[:, 0].argmax()]))
    network.train()
    return {kind: {"first": float(np.mean(first[kind]))} | _auc(best[kind]) for kind in sorted(first)}


def _auc(scored: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """The area under the curve by its name; nothing where all or none of the questions have an answer."""
    yes = np.array([score for score, answered in scored if answered])
    no = np.array([score for score, answered in scored if not answered])
    return {"auc": float((yes[:, None] > no[None, :]).mean())} if len(yes) and len(no) else {}


def train_answer_scorer(
    medquad: Path,
    programs: Sequence[DocumentedProgram],
    out: Path,
    work: Path,
    config: TrainingConfig,
) -> dict[str, dict[str, float]]:
    """Trains a scorer and writes its weights, and beside them hashes of the questions that it learned from.

    Returns how it does on held-out questions, by kind.

    The same texts and configuration give the same file, byte for byte, on one machine.

    Args:
        medquad: The unpacked MedQuAD.
        programs: Documentation of software; without any, no question is asked of it.
        out: The safetensors file to write.
        work: A folder for states and checkpoints.
        config: How to train.
    """
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    rng = random.Random(config.seed)  # noqa: S311 - no secret
    documents, programs = read_medquad(medquad), list(programs)
    rng.shuffle(documents)
    rng.shuffle(programs)
    encoder = TokenEncoder(threads=torch.get_num_threads())
    asked_of_parts, parts = [], []
    for part, (first, last, count) in enumerate(
        (
            (2 * _HELD_OUT_SHARE, 1.0, config.questions),
            (_HELD_OUT_SHARE, 2 * _HELD_OUT_SHARE, config.held_out_questions),
            (0.0, _HELD_OUT_SHARE, config.held_out_questions),
        ),
        1,
    ):
        asked = ask_questions(
            count,
            documents[int(len(documents) * first) : int(len(documents) * last)],
            programs[int(len(programs) * first) : int(len(programs) * last)],
            config.seed + part,
        )
        asked_of_parts.append(asked)
        parts.append(build_training_set(asked, encoder, work, _print))
    data, calibration, held_out = parts
    rarity = token_rarity(data.states, encoder.vocabulary_size)
    network = AnswerNetwork(data.states.states.shape[1])
    averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGED_SHARE))
    steps = int(config.epochs * len(data.rows) / config.batch_questions)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=steps + 1, pct_start=0.1
    )
    key = hashlib.sha256(json.dumps([asdict(config), data.digest]).encode()).hexdigest()
    checkpoint = work / f"checkpoint-{key[:16]}.pt"
    kept: dict[str, Any] = {"network": network, "averaged": averaged}
    kept |= {"optimizer": optimizer, "schedule": schedule}
    done, best, best_step, chosen_weights = 0, -1.0, 0, averaged.module.state_dict()
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        for name, each in kept.items():
            each.load_state_dict(saved[name])
        torch.set_rng_state(saved["random"])  # of dropout
        done, best, best_step, chosen_weights = (
            saved[name] for name in ("done", "best", "best_step", "chosen")
        )
    order = [
        index
        for _ in range(int(config.epochs) + 1)
        for index in rng.sample(range(len(data.rows)), len(data.rows))
    ]
    began = time.monotonic()
    for step in range(done, steps):
        chosen = order[step * config.batch_questions : (step + 1) * config.batch_questions]
        *_, losses = group_losses(network, data, chosen, rarity)
        loss = losses[0] + config.order_weight * losses[1]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(network)
        schedule.step()
        if (step + 1) % _CHECKPOINT_STEPS and step + 1 < steps:
            continue
        figures = measure(averaged.module, calibration, rarity)
        first = float(np.mean([figures[kind]["first"] for kind in _ASKED_BY_PEOPLE if kind in figures]))
        if first > best:
            best, best_step = first, step + 1
            chosen_weights = {name: values.clone() for name, values in averaged.module.state_dict().items()}
        left = (time.monotonic() - began) / (step + 1 - done) * (steps - step - 1)
        _print(
            f"step {step + 1} of {steps}, loss {float(loss.detach()):.3f}, {first:.3f} of the calibration's "
            f"questions answered first, {left / 60:.0f} minutes left"
        )
        state: dict[str, Any] = {name: each.state_dict() for name, each in kept.items()}
        state |= {"random": torch.get_rng_state(), "done": step + 1}
        state |= {"best": best, "best_step": best_step, "chosen": chosen_weights}
        torch.save(state, checkpoint)
    network.load_state_dict(chosen_weights)
    found = measure(network, held_out, rarity)
    told = {
        "config": asdict(config),
        "data": data.digest,
        "calibration": calibration.digest,
        "held_out": held_out.digest,
        "step": best_step,
        "figures": found,
        "license": "Apache-2.0",
        "sources": "MedQuAD (CC BY 4.0), invented facts" + (", documentation" if programs else ""),
    }
    weights = {name: values.half().contiguous() for name, values in network.state_dict().items()}
    # One entry: safetensors writes several in an order of chance, and the file would have another digest.
    save_file(
        weights | {"idf": torch.from_numpy(rarity).half()}, out, metadata={"training": json.dumps(told)}
    )
    learned = {fact.question for asked in asked_of_parts[:2] for _, fact in asked}
    write_fingerprints(scorer_questions_file(out), fingerprints(sorted(learned)))
    return found


def _print(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Trains from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--medquad", type=Path, required=True, help="an unpacked MedQuAD")
    parser.add_argument(
        "--documentation", type=Path, help="a folder of documentation, such as an environment's site-packages"
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        help="the files of that folder to read, as sha256sum lists them; all unless given",
    )
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--work", type=Path, required=True, help="a folder for token states and checkpoints")
    parser.add_argument("--questions", type=int, default=TrainingConfig.questions)
    parser.add_argument("--held-out-questions", type=int, default=TrainingConfig.held_out_questions)
    parser.add_argument("--epochs", type=float, default=TrainingConfig.epochs)
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed)
    parser.add_argument("--threads", type=int, default=1, help="processor threads; no more than are free")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    config = replace(
        TrainingConfig(),
        questions=given.questions,
        held_out_questions=given.held_out_questions,
        epochs=given.epochs,
        seed=given.seed,
    )
    programs = read_documentation(given.documentation, given.manifest) if given.documentation else []
    _print(json.dumps(train_answer_scorer(given.medquad, programs, given.out, given.work, config)))


if __name__ == "__main__":
    main()
