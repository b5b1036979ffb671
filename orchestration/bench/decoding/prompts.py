"""Prompts for benches: passages of the installed software's texts, alike often or by Zipf's law."""

import numpy as np
import numpy.typing as npt

from assets.sources.environment_corpus import list_environment_corpus, read_environment_corpus
from inference.engines.causal_model import CausalModel
from inference.engines.generation import GenerationRequest, SamplingOptions

_PASSAGES = 400
_PASSAGES_PER_PROMPT = 4
_PASSAGE_TOKENS = (40, 160)
_QUESTION_TOKENS = 24
_READ_CHARACTERS_PER_TOKEN = 12

Tokens = npt.NDArray[np.int64]


def text_pieces(model: CausalModel, count: int, tokens: int) -> list[Tokens]:
    """Returns the beginnings of up to `count` texts, the same each time, of `tokens` tokens each."""
    random = np.random.default_rng(0)
    bodies = read_environment_corpus(list_environment_corpus())["body"].to_pylist()
    texts = [body.decode("utf-8", "replace") for body in bodies if body]
    pieces: list[Tokens] = []
    for text in random.permutation(np.array(texts, object)):
        read = text[: tokens * _READ_CHARACTERS_PER_TOKEN]
        ids = np.array(model.tokenizer(read, add_special_tokens=False)["input_ids"], np.int64)
        if len(ids) >= tokens:
            pieces.append(ids[:tokens])
        if len(pieces) == count:
            break
    return pieces


def quoting_prompts(
    model: CausalModel, prompts: int, skew: float, max_tokens: int
) -> list[GenerationRequest]:
    """Returns prompts of an instruction, four passages and a question; popular passages stand first.

    Args:
        model: Whose tokens they have.
        prompts: Number of prompts.
        skew: Of Zipf's law, by which passages are drawn; 0 draws each alike often.
        max_tokens: Number of tokens of each text.
    """
    random = np.random.default_rng(0)
    whole = text_pieces(model, _PASSAGES, _PASSAGE_TOKENS[1])
    pieces = [piece[: random.integers(*_PASSAGE_TOKENS)] for piece in whole]
    chance = np.arange(1, len(pieces) + 1, dtype=float) ** -skew
    instruction = model.tokenizer("Answer the question from the passages alone, and cite them.\n")[
        "input_ids"
    ]
    options = SamplingOptions(max_tokens=max_tokens)
    requests = []
    for _ in range(prompts):
        drawn = random.choice(len(pieces), _PASSAGES_PER_PROMPT, replace=False, p=chance / chance.sum())
        question = pieces[random.integers(len(pieces))][-_QUESTION_TOKENS:]
        # One order for all prompts, the popular first: what two share stands at the beginning of both.
        parts = [np.array(instruction, np.int64), *(pieces[each] for each in sorted(drawn)), question]
        requests.append(GenerationRequest(np.concatenate(parts), options, sharing_key="bench"))
    return requests
