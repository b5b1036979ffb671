"""A token is drawn as often as its options make it likely."""

import numpy as np
import pytest
import torch

from inference.engines.generation import GenerationRequest, SamplingOptions
from inference.engines.torch.sampler import choose_tokens
from inference.engines.torch.sequence import Sequence

LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -30.0]])
DRAWS = 4000


def text_of(generated: tuple[int, ...] = (), **options: float) -> Sequence:
    """Returns a text on its way."""
    said = SamplingOptions(**{"temperature": 1.0, "seed": 3, **options})  # type: ignore[arg-type]
    text = Sequence(0, GenerationRequest(np.array([1]), said), (), DRAWS)
    text.begin_text()
    text.tokens += generated
    return text


def frequencies(generated: tuple[int, ...] = (), **options: float) -> np.ndarray:
    """How often each token is drawn."""
    text = text_of(generated, **options)
    found = [int(choose_tokens(LOGITS, {0: text})) for _ in range(DRAWS)]
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
    text = text_of((0, 0), temperature=0.0, frequency_penalty=0.6)
    assert choose_tokens(LOGITS.clone(), {0: text}).tolist() == [1]


def test_logits_that_are_not_finite_give_no_token_to_their_row_alone() -> None:
    logits = LOGITS.repeat(3, 1)
    logits[1, 2] = float("nan")
    texts = {0: text_of(temperature=0.0), 1: text_of(), 2: text_of(top_k=1)}
    assert choose_tokens(logits, texts).tolist() == [0, -1, 0]


def test_a_text_that_is_begun_again_draws_the_same() -> None:
    text = text_of(temperature=100.0)
    first = [int(choose_tokens(LOGITS, {0: text})) for _ in range(20)]
    text.begin_text()
    assert [int(choose_tokens(LOGITS, {0: text})) for _ in range(20)] == first
    other = text_of(temperature=100.0, seed=6)
    assert [int(choose_tokens(LOGITS, {0: other})) for _ in range(20)] != first
