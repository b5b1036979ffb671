"""A token is drawn as often as its options make it likely."""

import numpy as np
import pytest
import torch

from inference.engines.generation import SamplingOptions
from inference.engines.torch.sampler import Draw, choose_tokens, uniforms

LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -30.0]])
DRAWS = 4000


def frequencies(generated: tuple[int, ...] = (), **options: float) -> np.ndarray:
    """How often each token is drawn."""
    said = SamplingOptions(**{"temperature": 1.0, **options})  # type: ignore[arg-type]
    before = np.array(generated, np.int32)
    found = [int(choose_tokens(LOGITS, [Draw(0, said, before, each)])) for each in uniforms(3, DRAWS)]
    return np.bincount(found, minlength=6) / DRAWS


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, softmax(LOGITS[0].numpy())),
        ({"temperature": 0.5}, softmax(LOGITS[0].numpy() * 2)),
        ({"temperature": 100.0}, softmax(LOGITS[0].numpy() / 100)),
        ({"temperature": 1e-4}, np.eye(6)[0]),
        ({"top_k": 2}, np.append(softmax(np.array([2.0, 1.0])), [0] * 4)),
        ({"top_k": 1}, np.eye(6)[0]),
        ({"top_k": 10**9}, softmax(LOGITS[0].numpy())),
        ({"top_p": 1e-9}, np.eye(6)[0]),
        # 0.55 and 0.20 are the likeliest two: the second passes 0.7, so the third is out.
        ({"top_p": 0.7}, np.append(softmax(np.array([2.0, 1.0])), [0] * 4)),
        ({"min_p": 0.3}, np.append(softmax(np.array([2.0, 1.0])), [0] * 4)),
        ({"min_p": 1.0}, np.eye(6)[0]),
        ({"presence_penalty": 1.0, "generated": (0, 0)}, softmax(np.array([1, 1, 0.5, 0, -1, -30]))),
        ({"frequency_penalty": 1.0, "generated": (0, 0)}, softmax(np.array([0, 1, 0.5, 0, -1, -30]))),
    ],
)
def test_tokens_are_drawn_as_often_as_their_options_say(
    options: dict[str, float], expected: np.ndarray
) -> None:
    found = frequencies(**options)  # type: ignore[arg-type]
    assert np.abs(found - expected).max() < 0.03
    assert not found[expected == 0].any()


def test_a_penalty_changes_what_is_likeliest_where_no_token_is_drawn() -> None:
    options = SamplingOptions(frequency_penalty=0.6)
    draw = Draw(0, options, np.array([0, 0], np.int32), 0.0)
    assert choose_tokens(LOGITS.clone(), [draw]).tolist() == [1]


def test_logits_that_are_not_finite_give_no_token_to_their_row_alone() -> None:
    logits = LOGITS.repeat(3, 1)
    logits[1, 2] = float("nan")
    draws = [Draw(row, SamplingOptions(temperature=1.0), np.array([], np.int32), 0.0) for row in (1, 2)]
    assert choose_tokens(logits, draws).tolist() == [0, -1, 0]


def test_the_numbers_of_a_seed_are_the_same_however_many_are_asked_for() -> None:
    assert uniforms(5, 10).tolist() == uniforms(5, 1000)[:10].tolist()
    assert uniforms(5, 10).tolist() != uniforms(6, 10).tolist()
