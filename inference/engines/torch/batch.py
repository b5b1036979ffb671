"""Completes prompts that fit into slots of one length: their chunks first, then a token at each step."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.engines.generation import (
    FinishReason,
    Generation,
    GenerationRequest,
    SamplingOptions,
    TokenLogprobs,
)
from inference.engines.torch.adapters import DecoderAdapter, present_adapters
from inference.engines.torch.attention import ChunkAttention
from inference.engines.torch.decode_step import decode_step
from inference.engines.torch.json_guide import JsonGuide, JsonGuides
from inference.engines.torch.kv_cache import KvCache
from inference.engines.torch.model import Decoder
from inference.engines.torch.sampler import Draw, choose_tokens, is_plain, uniforms
from inference.engines.torch.scheduler import Prefill, Scheduler
from inference.engines.torch.scheduler import Sequence as Prompt

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


class Work:
    """A request on its way.

    Args:
        index: Which request, from 0.
        request: The request.
        context_tokens: Number of tokens that the model can read and write together.
    """

    def __init__(self, index: int, request: GenerationRequest, context_tokens: int) -> None:
        options = request.options
        self.index, self.request, self.options = index, request, options
        self.limit = min(options.max_tokens, context_tokens - len(request.prompt))
        self.stop = _stop_pattern(options)
        # A token has a byte at least, but for some that are not shown: they only delay a stop that they end.
        self.stop_window = max((len(text.encode()) for text in options.stop), default=0) + 8
        self.plain = is_plain(options)


def _stop_pattern(options: SamplingOptions) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, options.stop))) if options.stop else None


@dataclass(eq=False)
class _Answer:
    """What is written in a slot, beside its tokens."""

    work: Work
    uniforms: npt.NDArray[np.float64]
    guide: JsonGuide | None
    chosen: list[float]
    top_ids: list[npt.NDArray[np.int32]]
    top: list[npt.NDArray[np.float32]]


class Batch:
    """One run of prompts through the slots of a cache.

    Args:
        decoder: The decoder.
        tokenizer: The tokenizer, of transformers.
        end_token_ids: The tokens that end a text.
        guides: What holds texts to JSON schemas.
        geometry: The shapes of the computation.
        cache: The slots; at most as many as the geometry says.
        prompts: The prompts, in the trie's order.
        adapters: The adapters that they have, by folder.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Any,
        end_token_ids: frozenset[int],
        guides: JsonGuides,
        geometry: Geometry,
        cache: KvCache,
        prompts: Sequence[Prompt[Work]],
        adapters: Mapping[Path, DecoderAdapter],
    ) -> None:
        slots, slot_tokens = cache.keys.shape[1], cache.keys.shape[3]
        assert slots <= geometry.slots
        self._decoder, self._tokenizer, self._geometry, self._cache = decoder, tokenizer, geometry, cache
        self._ends, self._guides = np.array(sorted(end_token_ids)), guides
        self._scheduler = Scheduler(prompts, slots, geometry.chunk_tokens, geometry.chunks)
        self._adapters = list(adapters.values())
        self._adapter_numbers: dict[Path | None, int] = {each: n for n, each in enumerate(adapters)}
        self._adapter_numbers[None] = -1
        self._step = decode_step(decoder, cache, geometry.slots, self._adapters)
        self._answers: dict[int, _Answer] = {}
        self._tokens = np.zeros((slots, slot_tokens), np.int32)
        self._counts = np.zeros(slots, np.int64)
        self._limits = np.zeros(slots, np.int64)

    @property
    def unfinished(self) -> list[Prompt[Work]]:
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
                    self._begin(slot)
                yield from self._advance(logits, list(plan.ready))
            else:
                yield from self._advance(self._decode(), list(scheduler.decoding))

    @torch.inference_mode()
    def _prefill(self, plan: Prefill[Work]) -> Tensor:
        """Computes chunks; returns logits of shape (slots, vocabulary) after the prompts that are ready."""
        for copy in plan.copies:
            self._cache.copy(copy.source, copy.target, copy.start, copy.end)
        padded, rows = self._geometry.chunk_tokens, self._geometry.chunk_tokens * self._geometry.chunks
        tokens, positions = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        adapters = np.full(rows, -1)
        for number, chunk in enumerate(plan.chunks):
            request = self._scheduler.sequence(chunk.slot).work.request
            prompt = request.prompt
            begin = number * padded
            tokens[begin : begin + chunk.tokens] = prompt[chunk.start : chunk.start + chunk.tokens]
            positions[begin : begin + padded] = np.arange(chunk.start, chunk.start + padded)
            adapters[begin : begin + padded] = self._adapter_numbers[request.adapter]
        attend = ChunkAttention(self._cache, self._decoder.shape, plan.chunks, padded)
        device = self._decoder.device
        hidden = self._decoder.hidden(
            torch.from_numpy(tokens).to(device),
            torch.from_numpy(positions).to(device),
            attend,
            present_adapters(self._adapters, adapters, device),
        )
        last = np.zeros(self._geometry.slots, np.int64)
        last[list(plan.ready)] = list(plan.ready.values())
        return self._decoder.logits(hidden[torch.from_numpy(last).to(device)])

    @torch.inference_mode()
    def _decode(self) -> Tensor:
        """Computes a token for each slot, and returns logits of shape (slots, vocabulary)."""
        tokens = np.zeros(self._geometry.slots, np.int64)
        positions = np.zeros(self._geometry.slots, np.int64)
        adapters = np.full(self._geometry.slots, -1)
        for slot in range(len(self._counts)):
            sequence = self._scheduler.decoding.get(slot)
            if sequence is None:  # its row writes after what the slot must keep
                positions[slot] = self._scheduler.held_tokens(slot)
            else:
                positions[slot] = sequence.prompt_tokens + self._counts[slot] - 1
                tokens[slot] = self._tokens[slot, self._counts[slot] - 1]
                adapters[slot] = self._adapter_numbers[sequence.work.request.adapter]
        return self._step(tokens, positions, adapters)

    def _begin(self, slot: int) -> None:
        work = self._scheduler.decoding[slot].work
        drawn = np.zeros(0) if work.options.greedy else uniforms(work.options.seed, work.limit)
        schema = work.options.json_schema
        guide = None if schema is None else self._guides.guide(schema)
        self._answers[slot] = _Answer(work, drawn, guide, [], [], [])
        self._counts[slot], self._limits[slot] = 0, work.limit

    def _advance(self, logits: Tensor, slots: list[int]) -> Iterator[Generation]:
        """Chooses the next token of slots, and yields the generations that it completes."""
        if not slots:
            return
        places = np.array(slots)
        tokens = self._choose(logits, slots)[places]
        failed, ended = tokens < 0, np.isin(tokens, self._ends)
        self._tokens[places, self._counts[places]] = tokens
        self._counts[places] += ~(failed | ended)
        full = self._counts[places] == self._limits[places]
        for slot, token, nan, end, limit in zip(slots, tokens, failed, ended, full, strict=True):
            work, guide = self._answers[slot].work, self._answers[slot].guide
            if guide and not (nan or end):
                guide.follow(int(token))
            if guide and guide.fault:
                yield self._fail(slot, f"the text can not be held to its JSON schema: {guide.fault}")
            elif nan:
                yield self._fail(slot, _NOT_FINITE)
            elif end:
                yield self._finish(slot, "stop")
            elif work.stop and (text := self._stopped_text(slot, work.stop, work.stop_window)) is not None:
                yield self._finish(slot, "stop", text)
            elif limit:
                yield self._finish(slot, "length")

    @torch.inference_mode()
    def _choose(self, logits: Tensor, slots: list[int]) -> npt.NDArray[np.int64]:
        """Returns the next token of all slots, of which some are in work, and keeps log-probabilities."""
        draws = []
        for slot in slots:
            answer, count = self._answers[slot], self._counts[slot]
            if not answer.work.plain:
                uniform = 0.0 if answer.work.options.greedy else float(answer.uniforms[count])
                draws.append(Draw(slot, answer.work.options, self._tokens[slot, :count], uniform))
        guided = {slot: guide for slot in slots if (guide := self._answers[slot].guide)}
        tokens = choose_tokens(self._guides.masked(logits, guided), draws)
        for slot in slots:
            answer = self._answers[slot]
            if answer.work.options.logprobs is not None and tokens[slot] >= 0:
                logprobs = logits[slot].log_softmax(-1)
                top, ids = logprobs.topk(answer.work.options.logprobs)
                answer.chosen.append(float(logprobs[tokens[slot]]))
                answer.top.append(top.cpu().numpy())
                answer.top_ids.append(ids.to(torch.int32).cpu().numpy())
        return tokens.cpu().numpy()

    def _stopped_text(self, slot: int, stop: re.Pattern[str], window: int) -> str | None:
        """Returns the text of a slot up to a stop string; None if there is none in it."""
        count = self._counts[slot]
        recent = self._text(self._tokens[slot, max(0, count - window) : count])
        if not stop.search(recent):
            return None
        text = self._text(self._tokens[slot, :count])
        found = stop.search(text)
        return text[: found.start()] if found else None

    def _text(self, tokens: npt.NDArray[np.int32]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _finish(self, slot: int, reason: FinishReason, text: str | None = None) -> Generation:
        answer, tokens = self._answers.pop(slot), self._tokens[slot, : self._counts[slot]].copy()
        self._scheduler.release(slot)
        logprobs = None
        if (count := answer.work.options.logprobs) is not None:
            logprobs = TokenLogprobs(
                np.array(answer.chosen[: len(tokens)], np.float32),
                np.array(answer.top_ids[: len(tokens)], np.int32).reshape(len(tokens), count),
                np.array(answer.top[: len(tokens)], np.float32).reshape(len(tokens), count),
            )
        shown = self._text(tokens) if text is None else text
        return Generation(answer.work.index, tokens, shown, reason, logprobs)

    def _fail(self, slot: int, failure: str) -> Generation:
        index = self._answers.pop(slot).work.index
        self._scheduler.forget(slot)
        self._cache.clear(slot)
        return Generation(index, np.array([], np.int32), "", "error", failure=failure)
