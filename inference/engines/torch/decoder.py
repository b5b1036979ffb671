"""Completes many prompts at once with a decoder on this machine, each to the same tokens in any company."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from inference.engines.adapter_files import InvalidAdapter
from inference.engines.causal_model import CausalModel
from inference.engines.generation import Generation, GenerationRequest, Generator, Quantization
from inference.engines.protocol import EngineError
from inference.engines.torch.adapters import DecoderAdapter
from inference.engines.torch.attention import KvCache
from inference.engines.torch.batch import Batch, Geometry, failed
from inference.engines.torch.json_guide import InvalidJsonSchema, JsonGuides
from inference.engines.torch.model import Decoder, UnknownDecoder
from inference.engines.torch.sequence import Sequence as Prompt
from inference.engines.torch.sequence import prefix_nodes

logger = logging.getLogger(__name__)

_MOST_IDLE_ADAPTERS = 64
"""Where more adapters are loaded, they are given up before the next prompts."""

KV_MEMORY_BYTES = 2 << 30
"""The default of what keys and values may take."""
_CPU = Geometry(slots=16, chunk_tokens=64, chunks=8)
_GPU = Geometry(slots=64, chunk_tokens=256, chunks=16)
"""Slots and tokens of a chunk are multiples of a matrix tile's 16 rows: each row is computed alike."""


class BatchDecoder:
    """Completes many prompts with one model: `BatchDecoder(model, tokenizer, ends).generate(requests)`.

    Each prompt may have a low-rank adapter of its own (`GenerationRequest.adapter`).

    A prompt's tokens do not depend on the prompts beside it, their order or number, nor on what is shared:
    every product has a fixed number of rows, and padding depends on the prompt alone. They may differ between
    machines, numbers of threads and dtypes, as a sum's rounding does.

    Args:
        model: A causal language model of transformers, in evaluation mode. Its weights are taken over: it can
            not be used after.
        tokenizer: Its tokenizer.
        end_token_ids: The tokens that end a text.
        kv_memory_bytes: How much memory keys and values may take; with less, fewer prompts are worked on at
            once, to the same tokens.
        geometry: The fixed shapes of the computation; by the model's device unless given.
        quantization: What products with weights are computed in; None for the type of the weights.

    Attributes:
        computation: The model's computation.
        geometry: As given. A batch may have another than the one before; bytes are the same in one alone.

    Raises:
        UnknownDecoder: The batch decoder does not know this kind of model.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        end_token_ids: frozenset[int],
        kv_memory_bytes: int = KV_MEMORY_BYTES,
        geometry: Geometry | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        self.geometry = geometry or (_CPU if model.device.type == "cpu" else _GPU)
        self.computation = Decoder(model, self.geometry.slots, quantization)
        self._tokenizer = tokenizer
        self._end_token_ids = end_token_ids
        self._guides = JsonGuides(tokenizer, self.computation.vocabulary, end_token_ids)
        self._kv_memory_bytes = kv_memory_bytes
        self._adapters: dict[Path, DecoderAdapter] = {}

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        """Yields a generation for each request as it is complete, in any order; a failed one fails alone."""
        if len(self._adapters) > _MOST_IDLE_ADAPTERS:
            self._adapters.clear()  # reading those that are asked for again takes less than they hold
        by_slot_tokens = defaultdict[int, list[Prompt]](list)
        nodes = prefix_nodes(requests, self.geometry.chunk_tokens)
        for index, request in enumerate(requests):
            if failure := self._refusal(request):
                yield failed(index, failure)
                continue
            limit = min(request.options.max_tokens, self.computation.context_tokens - len(request.prompt))
            # Few lengths, which depend on the request alone.
            tokens = max(len(request.prompt) + limit, self.geometry.chunk_tokens)
            by_slot_tokens[_power_of_two(tokens)].append(Prompt(index, request, nodes[index], limit))
        for slot_tokens, prompts in sorted(by_slot_tokens.items(), reverse=True):
            # Prompts of one adapter stand together: fewer adapters are computed at once.
            prompts.sort(key=lambda prompt: (str(prompt.request.adapter or ""), prompt.nodes))
            yield from self._complete(prompts, slot_tokens)

    def _refusal(self, request: GenerationRequest) -> str | None:
        """Returns why a request can not be completed, or None."""
        context, vocabulary = self.computation.context_tokens, self.computation.vocabulary
        if (schema := request.options.json_schema) is not None:
            try:
                self._guides.guide(schema)
            except InvalidJsonSchema as error:
                return str(error)
        if (folder := request.adapter) is not None and folder not in self._adapters:
            try:
                self._adapters[folder] = self.computation.read_adapter(folder)
            except InvalidAdapter as error:
                return str(error)
        if not len(request.prompt):
            return "the prompt is empty: give it a token at least"
        if len(request.prompt) >= context:
            return (
                f"the prompt has {len(request.prompt)} tokens, and the model reads and writes {context} "
                "together: shorten it"
            )
        if request.prompt.min() < 0 or request.prompt.max() >= vocabulary:
            return f"the prompt has token ids beyond 0 to {vocabulary - 1}: use the model's tokenizer"
        return None

    def _complete(self, prompts: list[Prompt], slot_tokens: int) -> Iterator[Generation]:
        """Completes prompts that need slots of one length; with half the slots when memory is too small."""
        slot_bytes = slot_tokens * self.computation.kv_bytes_per_token
        # Few numbers of slots: each is compiled anew on a GPU.
        slots = min(self.geometry.slots, _power_of_two(len(prompts)), self._kv_memory_bytes // slot_bytes)
        while prompts and slots:
            left = prompts
            try:
                batch = Batch(
                    self.computation,
                    self._tokenizer,
                    self._end_token_ids,
                    self._guides,
                    self.geometry,
                    KvCache(self.computation, slots, slot_tokens),
                    prompts,
                    self._adapters,
                )
                for generation in batch.run():
                    yield generation
                    left = batch.unfinished
                left = []
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            batch = None  # type: ignore[assignment]  # frees the memory before more is asked for
            if left:
                if self.computation.device.type == "cuda":
                    torch.cuda.empty_cache()
                slots //= 2
            prompts = left
        for prompt in prompts:
            yield failed(
                prompt.index,
                f"out of memory: keys and values of a prompt and answer of up to {slot_tokens} tokens take "
                f"{slot_bytes / 2**20:,.0f} MiB, of {self._kv_memory_bytes / 2**20:,.0f} MiB that they may: "
                "allow more memory, or fewer tokens",
            )


def build_generator(model: CausalModel, kv_memory_bytes: int = KV_MEMORY_BYTES) -> Generator:
    """Returns the batch decoder, which takes the weights over, or transformers where that knows more.

    Raises:
        EngineError: Only transformers knows the model, and a quantization is asked for.
    """
    try:
        return BatchDecoder(
            *(model.model, model.tokenizer, model.end_token_ids, kv_memory_bytes),
            quantization=model.quantization,
        )
    except UnknownDecoder as error:
        if model.quantization:
            raise EngineError(
                f"{error}, and nothing else computes in {model.quantization}: do not set "
                "HEADWATER_GENERATOR__QUANTIZATION"
            ) from error
        logger.info("%s: transformers generates instead, one prompt after the other", error)
        return model


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether torch or numpy did not get memory: on a CPU torch says so only in words."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error) or "bad_alloc" in str(error)
