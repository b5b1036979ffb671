"""The answer scorer: the same with numpy as it was trained with torch, its training, and its faults."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.scoring.answer_reader import AnswerReader
from inference.scoring.answer_scorer import PACKAGED_ANSWER_SCORER, AnswerScorer, BadAnswerScorer
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedder import Embedder
from retrieval.embedding.token_states import MAX_TOKENS, TokenEncoder
from tools.scorer_training.network import AnswerNetwork, pair_batch
from tools.scorer_training.train import (
    TrainingConfig,
    group_losses,
    token_rarity,
    train_answer_scorer,
)

TEXTS = [
    "Where does the Danube rise?",
    "The Danube rises in the Black Forest in Germany.",
    "Bread is baked from flour, water and salt.",
    "word " * 300,
    "?",
]


@pytest.fixture(scope="module")
def encoder() -> TokenEncoder:
    return TokenEncoder(threads=1)


def test_token_states_are_those_of_the_embedder(encoder: TokenEncoder) -> None:
    found = encoder.encode(TEXTS)
    assert found.offsets[-1] == len(found.ids) == len(found.states) == len(found.flags)
    assert found.lengths.max() == MAX_TOKENS
    whole = Embedder(EmbedderConfig()).encode(TEXTS[:3])
    assert (found.vectors[:3] * whole).sum(1).min() > 0.999
    # The mean of the states, brought to length 1, is the vector of the text.
    for text in range(len(TEXTS)):
        mean = found.states[found.offsets[text] : found.offsets[text + 1]].astype(np.float32).mean(0)
        assert mean / np.linalg.norm(mean) @ found.vectors[text] > 0.999


def test_numpy_computes_what_was_trained(encoder: TokenEncoder, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    states = encoder.encode(TEXTS)
    rarity = token_rarity(states, encoder.vocabulary_size)
    network = AnswerNetwork().eval()
    for values in network.parameters():  # at the start some are zero, and would hide a fault
        torch.nn.init.normal_(values, std=0.2)
    save_file(network.state_dict() | {"idf": torch.from_numpy(rarity)}, tmp_path / "random.safetensors")
    with torch.inference_mode():
        batch = pair_batch(states, np.zeros(4, dtype=np.int64), np.arange(1, 5), rarity)
        expected = network(batch).numpy()
    found = AnswerScorer(tmp_path / "random.safetensors").score(
        encoder.encode(TEXTS[:1]), encoder.encode(TEXTS[1:])
    )
    np.testing.assert_allclose(np.stack([found.relevance, found.answerability], 1), expected, atol=2e-2)


def test_the_packaged_scorer_knows_an_answer_from_its_neighbours() -> None:
    reader = AnswerReader()
    candidates = [
        "The Danube is 2,850 kilometres long.",
        "The Danube rises in the Black Forest in Germany.",
        "The Rhine rises in the Swiss Alps.",
    ]
    read = reader.read("Where does the Danube rise?", candidates)
    assert read.scores.argmax() == read.answerability.argmax() == 1
    assert reader.reads("Where does the Danube rise?", candidates)
    assert not reader.reads("多瑙河发源于哪里?", candidates)
    assert not reader.reads(
        "Wo entspringt die Donau?", ["Die Donau entspringt im Schwarzwald in Deutschland."]
    )
    assert PACKAGED_ANSWER_SCORER.stat().st_size < 5_000_000


@pytest.mark.parametrize("content", [None, b"", b"not safetensors"])
def test_a_file_that_is_no_scorer_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadAnswerScorer, match=r"mine\.safetensors"):
        AnswerScorer(path)


MEDQUAD = """<Document><Focus>{subject}</Focus><QAPairs>
<QAPair><Question qtype="frequency">How many people are affected by {subject} ?</Question>
<Answer>About 1 in {number} people in Norway have {subject} at birth. It is more common in Oslo.</Answer>
</QAPair><QAPair><Question qtype="treatment">What are the treatments for {subject} ?</Question>
<Answer>Treatment of {subject} begins with rest for {number} days. After that Doctor Jensen gives the
patient some exercise. The patient should then walk a mile in Tromso each day. A diet of fish was useful in
1987 too. The doctor sees the patient again in spring. No other treatment is known to help.</Answer></QAPair>
</QAPairs></Document>"""


def test_an_interrupted_training_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        subject = MEDQUAD.format(subject=f"Illness {number}", number=number + 100)
        (tmp_path / f"{number}.xml").write_text(subject)
    config = TrainingConfig(questions=16, held_out_questions=8, epochs=1, batch_questions=4)
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    monkeypatch.setattr("tools.scorer_training.train._CHECKPOINT_STEPS", 1)
    found = train_answer_scorer(tmp_path, [], whole, tmp_path / "work", config)
    assert "fact" in found
    trained = 0

    def interrupted(network: Any, *arguments: Any) -> Any:
        nonlocal trained
        trained += isinstance(network, AnswerNetwork) and network.training
        if trained == 3:
            raise KeyboardInterrupt
        return group_losses(network, *arguments)

    monkeypatch.setattr("tools.scorer_training.train.group_losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_answer_scorer(tmp_path, [], parts, tmp_path / "other", config)
    assert not parts.exists()
    monkeypatch.setattr("tools.scorer_training.train.group_losses", group_losses)
    assert train_answer_scorer(tmp_path, [], parts, tmp_path / "other", config) == found
    assert whole.read_bytes() == parts.read_bytes()
    AnswerScorer(whole)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=50)
def test_an_invented_question_is_not_answered_by_the_sentences_that_are_said_not_to(seed: int) -> None:
    import random

    from tools.scorer_training.synthetic_facts import invent_asked_fact

    asked = invent_asked_fact(random.Random(seed))
    assert asked == invent_asked_fact(random.Random(seed))
    assert not set(asked.answering) & set(asked.other)
    assert all(
        "{" not in text and "}" not in text for text in (asked.question, *asked.answering, *asked.other)
    )
