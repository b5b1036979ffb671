"""Completes prompts that fit into slots of one length: their chunks first, then a token at each step."""

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Sequences
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inference.engines.generation import FinishReason, Generation, TokenLogprobs
from inference.engines.torch.adapters import DecoderAdapter, present_adapters
from inference.engines.torch.attention import ChunkAttention, KvCache
from inference.engines.torch.json_guide import JsonGuides, guide_fault
from inference.engines.torch.model import Decoder
from inference.engines.torch.sampler import choose_tokens
from inference.engines.torch.scheduler import Prefill, Scheduler
from inference.engines.torch.sequence import Sequence
from inference.engines.torch.step import build_step

_NOT_FINITE = "the model's logits are not finite: its weights are damaged, or its dtype is too narrow for it"


@dataclass(frozen=True)
class Geometry:
    """The fixed shapes of the computation, on which the rounding of sums depends.

    Attributes:
        slots: Number of rows of a step, and of prompts in work at most.
        chunk_tokens: Number of tokens of a chunk of a prompt.
        chunks: Number of chunks that are computed at once.
    """

    slots: int
    chunk_tokens: int
    chunks: int


class Batch:
    """One run of prompts through the slots of a cache.

    Args:
        decoder: The decoder.
        tokenizer: The tokenizer, of transformers.
        end_token_ids: The tokens that end a text.
        guides: What holds texts to JSON schemas.
        geometry: The shapes of the computation.
        cache: The slots; at most as many as the geometry says.
        sequences: The prompts, in the trie's order.
        adapters: The adapters that they have, by folder, and others.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Any,
        end_token_ids: frozenset[int],
        guides: JsonGuides,
        geometry: Geometry,
        cache: KvCache,
        sequences: Sequences[Sequence],
        adapters: Mapping[Path, DecoderAdapter],
    ) -> None:
        assert cache.slots <= geometry.slots
        self._decoder, self._tokenizer, self._ends, self._guides = decoder, tokenizer, end_token_ids, guides
        self._geometry, self._cache = geometry, cache
        self._scheduler = Scheduler(sequences, cache.slots, geometry.chunk_tokens, geometry.chunks)
        folders = dict.fromkeys(each.request.adapter for each in sequences if each.request.adapter)
        self._adapters = [adapters[folder] for folder in folders]
        self._adapter_numbers = {folder: number for number, folder in enumerate(folders)}
        self._step = build_step(decoder, cache, geometry.slots, self._adapters)

    @property
    def unfinished(self) -> list[Sequence]:
        """The prompts without a generation so far."""
        return self._scheduler.unfinished

    def run(self) -> Iterator[Generation]:
        """Yields a generation for each prompt as it is complete."""
        scheduler = self._scheduler
        while scheduler:
            plan = scheduler.next_prefill() if scheduler.fills_a_batch else None
            if plan and plan.chunks:
                logits = self._prefill(plan)
                for slot in plan.ready:
                    schema = scheduler.decoding[slot].request.options.json_schema
                    scheduler.decoding[slot].begin_text(
                        None if schema is None else self._guides.guide(schema)
                    )
                yield from self._advance(logits, list(plan.ready))
            else:
                yield from self._advance(self._decode(), list(scheduler.decoding))

    @torch.inference_mode()
    def _prefill(self, plan: Prefill) -> Tensor:
        """Computes chunks; returns logits of shape (slots, vocabulary) after the prompts that are ready."""
        for copy in plan.copies:
            self._cache.copy(copy.source, copy.target, copy.start, copy.end)
        padded, rows = self._geometry.chunk_tokens, self._geometry.chunk_tokens * self._geometry.chunks
        tokens, positions = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        adapters = np.full(rows, -1)
        for number, chunk in enumerate(plan.chunks):
            sequence, begin = self._scheduler.sequence(chunk.slot), number * padded
            end = begin + padded
            tokens[begin : begin + chunk.tokens] = sequence.request.prompt[chunk.start :][: chunk.tokens]
            positions[begin:end] = np.arange(chunk.start, chunk.start + padded)
            adapters[begin:end] = self._adapter_number(sequence)
        device = self._decoder.device
        hidden = self._decoder.hidden(
            torch.from_numpy(tokens).to(device),
            torch.from_numpy(positions).to(device),
            ChunkAttention(self._cache, self._decoder, plan.chunks, padded),
            present_adapters(self._adapters, adapters, device),
        )
        last = np.zeros(self._geometry.slots, np.int64)
        last[list(plan.ready)] = list(plan.ready.values())
        return self._decoder.logits(hidden[torch.from_numpy(last).to(device)])

    @torch.inference_mode()
    def _decode(self) -> Tensor:
        """Computes a token for each slot, and returns logits of shape (slots, vocabulary)."""
        tokens, positions = np.zeros((2, self._geometry.slots), np.int64)
        adapters = np.full(self._geometry.slots, -1)
        for slot in range(self._cache.slots):
            sequence = self._scheduler.decoding.get(slot)
            if sequence is None:  # its row writes after what the slot must keep
                positions[slot] = self._scheduler.held_tokens(slot)
            else:
                positions[slot] = len(sequence.request.prompt) + len(sequence.tokens) - 1
                tokens[slot] = sequence.tokens[-1]
                adapters[slot] = self._adapter_number(sequence)
        return self._step(tokens, positions, adapters)

    def _begin(self, sequence: Sequence) -> None:
        schema = sequence.request.options.json_schema
        sequence.begin_text(None if schema is None else self._guides.guide(schema))

    def _adapter_number(self, sequence: Sequence) -> int:
        folder = sequence.request.adapter
        return -1 if folder is None else self._adapter_numbers[folder]

    def _advance(self, logits: Tensor, slots: list[int]) -> Iterator[Generation]:
        """Chooses the next token of slots, and yields the generations that it completes."""
        sequences = {slot: self._scheduler.decoding[slot] for slot in slots}
        tokens = self._choose(logits, sequences)
        for slot, sequence in sequences.items():
            token, guide, failure = tokens[slot], sequence.guide, None
            ended = token in self._ends
            if token < 0:
                failure = _NOT_FINITE
            elif not ended:
                sequence.tokens.append(token)
                if guide:
                    guide.consume_token(token)
            if guide and (fault := guide_fault(guide)):
                failure = f"the text can not be held to its JSON schema: {fault}"
            if failure:
                self._scheduler.forget(slot)
                self._cache.clear(slot)
                yield failed(sequence.index, failure)
            elif ended:
                yield self._finish(slot, "stop")
            elif (text := self._stopped_text(sequence)) is not None:
                yield self._finish(slot, "stop", text)
            elif len(sequence.tokens) == sequence.limit:
                yield self._finish(slot, "length")

    @torch.inference_mode()
    def _choose(self, logits: Tensor, sequences: Mapping[int, Sequence]) -> list[int]:
        """Returns the next token of all slots, of which some are in work, and keeps log-probabilities."""
        guided = {slot: each.guide for slot, each in sequences.items() if each.guide}
        tokens: list[int] = choose_tokens(self._guides.masked(logits, guided), sequences).tolist()
        for slot, sequence in sequences.items():
            if (count := sequence.request.options.logprobs) is not None and tokens[slot] >= 0:
                logprobs = logits[slot].log_softmax(-1)
                top, ids = (each.cpu().numpy() for each in logprobs.topk(count))
                sequence.logprobs.append((float(logprobs[tokens[slot]]), ids.astype(np.int32), top))
        return tokens

    def _stopped_text(self, sequence: Sequence) -> str | None:
        """Returns the text up to a stop string; None if there is none in it."""
        stop, tokens = sequence.stop, sequence.tokens
        if stop is None or not stop.search(self._text(tokens[-sequence.stop_window :])):
            return None
        text = self._text(tokens)
        found = stop.search(text)
        return text[: found.start()] if found else None

    def _text(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _finish(self, slot: int, reason: FinishReason, text: str | None = None) -> Generation:
        sequence = self._scheduler.decoding[slot]
        self._scheduler.release(slot)
        tokens, logprobs = sequence.tokens, None
        if (count := sequence.request.options.logprobs) is not None:
            said = sequence.logprobs[: len(tokens)]  # without those of the token that ended it
            logprobs = TokenLogprobs(
                np.array([chosen for chosen, _, _ in said], np.float32),
                np.array([ids for _, ids, _ in said], np.int32).reshape(len(tokens), count),
                np.array([top for _, _, top in said], np.float32).reshape(len(tokens), count),
            )
        shown = self._text(tokens) if text is None else text
        return Generation(sequence.index, np.array(tokens, np.int32), shown, reason, logprobs)


def failed(index: int, failure: str) -> Generation:
    """Returns what a request that failed has in place of a text."""
    return Generation(index, np.array([], np.int32), "", "error", failure=failure)
