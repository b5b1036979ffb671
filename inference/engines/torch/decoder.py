"""Completes many prompts at once with a decoder on this machine, each to the same tokens in any company."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inference.engines.adapter_files import InvalidAdapter
from inference.engines.causal_model import CausalModel
from inference.engines.generation import Generation, GenerationRequest, Generator, Quantization
from inference.engines.protocol import EngineError
from inference.engines.torch.adapters import DecoderAdapter
from inference.engines.torch.batch import Batch, Geometry, Work
from inference.engines.torch.json_guide import InvalidJsonSchema, JsonGuides
from inference.engines.torch.kv_cache import KvCache
from inference.engines.torch.model import Decoder, UnknownDecoder
from inference.engines.torch.prefix_trie import prefix_nodes
from inference.engines.torch.scheduler import Sequence as Prompt

logger = logging.getLogger(__name__)

_MOST_IDLE_ADAPTERS = 64
"""Where more adapters are loaded, those that the next prompts do not have are given up."""

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
        self._guides = JsonGuides(tokenizer, self.computation.shape.vocabulary, end_token_ids)
        self._kv_memory_bytes = kv_memory_bytes
        self._adapters: dict[Path, DecoderAdapter] = {}

    @property
    def kv_bytes_per_token(self) -> int:
        """Number of bytes that the keys and values of one token take."""
        return self.computation.kv_bytes_per_token

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        """Yields a generation for each request as it is complete, in any order; a failed one fails alone."""
        self._adapters = {
            folder: adapter
            for folder, adapter in self._adapters.items()
            if len(self._adapters) < _MOST_IDLE_ADAPTERS or folder in {each.adapter for each in requests}
        }
        longest_first = defaultdict[int, list[Work]](list)
        for index, request in enumerate(requests):
            if failure := self._refusal(request):
                yield _failed(index, failure)
                continue
            work = Work(index, request, self.computation.shape.context_tokens)
            longest_first[self._slot_tokens(work)].append(work)
        nodes = prefix_nodes(requests, self.geometry.chunk_tokens)
        for slot_tokens in sorted(longest_first, reverse=True):
            # Prompts of one adapter stand together: fewer adapters are computed at once.
            work_of_class = sorted(
                longest_first[slot_tokens],
                key=lambda work: (str(work.request.adapter or ""), nodes[work.index]),
            )
            prompts = [Prompt(len(work.request.prompt), nodes[work.index], work) for work in work_of_class]
            yield from self._complete(prompts, slot_tokens)

    def _refusal(self, request: GenerationRequest) -> str | None:
        """Returns why a request can not be completed, or None."""
        context, vocabulary = self.computation.shape.context_tokens, self.computation.shape.vocabulary
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

    def _slot_tokens(self, work: Work) -> int:
        """Returns the length of slot that a request needs: few lengths, which depend on the request alone."""
        tokens = max(len(work.request.prompt) + work.limit, self.geometry.chunk_tokens)
        return 1 << (tokens - 1).bit_length()

    def _complete(self, prompts: list[Prompt[Work]], slot_tokens: int) -> Iterator[Generation]:
        """Completes prompts that need slots of one length; with half the slots when memory is too small."""
        slot_bytes = slot_tokens * self.computation.kv_bytes_per_token
        wanted = 1 << (len(prompts) - 1).bit_length()  # few numbers: each is compiled anew on a GPU
        slots = min(self.geometry.slots, wanted, self._kv_memory_bytes // slot_bytes)
        adapters = dict.fromkeys(
            folder for prompt in prompts if (folder := prompt.work.request.adapter) is not None
        )
        while prompts and slots:
            left = prompts
            try:
                cache = KvCache(self.computation, slots, slot_tokens)
                batch = Batch(
                    self.computation,
                    self._tokenizer,
                    self._end_token_ids,
                    self._guides,
                    self.geometry,
                    cache,
                    prompts,
                    {each: self._adapters[each] for each in adapters},
                )
                for generation in batch.run():
                    yield generation
                    left = batch.unfinished
                left = []
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
            cache = batch = None  # type: ignore[assignment]  # frees the memory before more is asked for
            if left:
                if self.computation.device.type == "cuda":
                    torch.cuda.empty_cache()
                slots //= 2
            prompts = left
        for prompt in prompts:
            yield _failed(
                prompt.work.index,
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


def _failed(index: int, failure: str) -> Generation:
    return Generation(index, np.array([], np.int32), "", "error", failure=failure)


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Whether torch or numpy did not get memory: on a CPU torch says so only in words."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error) or "bad_alloc" in str(error)
