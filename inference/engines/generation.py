"""What is asked of a batch decoder, and what it gives back: prompts as token ids, options, generations."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

MAX_STOP_STRINGS = 1000
MAX_STOP_CHARACTERS = 1000
MAX_LOGPROBS = 20
_GREEDY_BELOW = 1e-5

Quantization = Literal["int8", "fp8"]
"""Numbers with fewer bits than a model's own, in which products with its weights can be computed."""
FinishReason = Literal["stop", "length", "error"]


class InvalidSamplingOption(ValueError):
    """A sampling option can't have this value; the message names the option, the value and the bounds."""


_BOUNDS: dict[str, tuple[float, float]] = {
    "max_tokens": (1, math.inf),
    "temperature": (0, 100),
    "top_p": (0, 1),
    "top_k": (1, math.inf),
    "min_p": (0, 1),
    "seed": (0, 2**63 - 1),
    "logprobs": (0, MAX_LOGPROBS),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}


@dataclass(frozen=True)
class SamplingOptions:
    """How the tokens after a prompt are chosen. Names and meanings are those of OpenAI's API and of vLLM.

    The default is greedy decoding. The checks are our own, since a
    worker's environment need not have pydantic.

    Attributes:
        max_tokens: Number of tokens at most. A decoder bounds it by what its model's context leaves after the
            prompt.
        temperature: Divides the logits; 0, as all below 1e-5, takes the likeliest token (greedy). To 100.
        top_p: Keeps the likeliest tokens until their probabilities add up to this; above 0.
        top_k: Keeps this many of the likeliest tokens; all unless set.
        min_p: Keeps tokens whose probability is at least this share of the likeliest token's.
        seed: Where sampling begins: equal prompts, options and seeds give equal tokens.
        stop: Strings that end the text, which ends before the first of them.
        logprobs: How many of the likeliest tokens are given with their log-probabilities, beside the chosen
            token's own; none at all unless set.
        presence_penalty: Is taken from the logit of each token that was generated before.
        frequency_penalty: Is taken from the logit of each token as often as it was generated before.
        response_format: OpenAI's, as JSON: `{"type": "json_object"}` for any JSON object, or
            `{"type": "json_schema", "json_schema": {"schema": ...}}` for JSON that fits the schema. A text
            that reaches max_tokens is cut off, as theirs is.

    Raises:
        InvalidSamplingOption: A value is beyond its bounds.
    """

    max_tokens: int = 300
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    response_format: str | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:  # NaN is never within
                raise InvalidSamplingOption(f"{name} is {value}: it can be from {least} to {most}")
        if self.top_p == 0:
            raise InvalidSamplingOption("top_p is 0, which keeps no token: it can be above 0 and up to 1")
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidSamplingOption(f"stop has {len(self.stop)} strings: {MAX_STOP_STRINGS} at most")
        for text in self.stop:
            if not 0 < len(text) <= MAX_STOP_CHARACTERS:
                raise InvalidSamplingOption(
                    f"a string of stop has 1 to {MAX_STOP_CHARACTERS} characters, one of these {len(text)}"
                )
        _ = self.json_schema

    @cached_property
    def json_schema(self) -> str | None:
        """The JSON schema that the text is made to fit, as JSON; None where it may be any text."""
        if self.response_format is None:
            return None
        try:
            said = json.loads(self.response_format)
            match said["type"]:
                case "text":
                    return None
                case "json_object":
                    return '{"type": "object"}'
                case "json_schema" if isinstance(said["json_schema"]["schema"], dict):
                    return json.dumps(said["json_schema"]["schema"])
            raise ValueError("it has another type, or a schema that is no object")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InvalidSamplingOption(
                f"response_format is none of OpenAI's ({str(error)[:200]}): it can be "
                '{"type": "text"}, {"type": "json_object"} or '
                '{"type": "json_schema", "json_schema": {"schema": {...}}}'
            ) from error

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken at each step."""
        return self.temperature < _GREEDY_BELOW


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """One prompt to complete.

    Attributes:
        prompt: Token ids, an integer array of shape (tokens,), not empty.
        options: How its completion is sampled.
        sharing_key: Prompts with equal keys may share the computed states of the prefix that they have in
            common: name the tenant and the release in it. A prompt without a key shares with none.
        adapter: The folder of the low-rank adapter, in PEFT's form, that completes it over the base; None for
            the base alone.
    """

    prompt: npt.NDArray[np.integer]
    options: SamplingOptions = field(default_factory=SamplingOptions)
    sharing_key: str | None = None
    adapter: Path | None = None

    def __post_init__(self) -> None:
        if self.prompt.ndim != 1 or not np.issubdtype(self.prompt.dtype, np.integer):
            raise ValueError(
                f"a prompt is a one-dimensional integer array of token ids, not {self.prompt.dtype} of shape "
                f"{self.prompt.shape}"
            )


@dataclass(frozen=True, eq=False)
class TokenLogprobs:
    """Natural logarithms of the probabilities of generated tokens, before temperature and other options.

    Attributes:
        chosen: Of each generated token, float32 of shape (tokens,).
        top_ids: The likeliest tokens at each place, likeliest first, int32 of shape (tokens, logprobs).
        top: Theirs, float32 of the same shape.
    """

    chosen: npt.NDArray[np.float32]
    top_ids: npt.NDArray[np.int32]
    top: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Generation:
    """What was generated after one prompt.

    Attributes:
        index: Which request, from 0.
        token_ids: The generated tokens, int32 of shape (tokens,), without the token that ends a text.
        text: The tokens as text, without special tokens; it ends before a stop string.
        finish_reason: `stop` (the model ended it, or a stop string), `length` (max_tokens or the context is
            full) or `error`.
        logprobs: Of the tokens; None unless asked for.
        failure: With `error`: what is wrong with this request, and the remedy. Otherwise None.
    """

    index: int
    token_ids: npt.NDArray[np.int32]
    text: str
    finish_reason: FinishReason
    logprobs: TokenLogprobs | None = None
    failure: str | None = None


class Generator(Protocol):
    """What completes prompts: the batch decoder, or a model of transformers by itself."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        """Yields a generation for each request as it is complete, in any order; a failed one fails alone."""
        ...
