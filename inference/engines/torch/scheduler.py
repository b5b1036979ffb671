"""Which prompt is in which slot, and what is computed next."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from operator import eq

from inference.engines.torch.attention import Chunk
from inference.engines.torch.sequence import Nodes, Sequence


@dataclass(frozen=True)
class Copy:
    """Keys and values that one slot takes over from another, from the first token to before the last."""

    source: int
    target: int
    start: int
    end: int


@dataclass
class Prefill:
    """What is computed of prompts at once.

    Attributes:
        copies: What is copied first.
        chunks: What is computed, at most as many as the batch has rows.
        ready: The slots whose prompts are complete after, with the row that holds their last token.
    """

    copies: list[Copy] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    ready: dict[int, int] = field(default_factory=dict)


class Scheduler:
    """Gives prompts slots and their chunks turns, and computes no node twice that a slot holds.

    After a prompt has left its slot, the slot still holds the keys and values of its prefix until another
    takes it; what leaves first is taken first. So prompts in the trie's depth-first order find their prefixes
    in a slot.

    Args:
        waiting: The prompts, in the trie's order.
        slots: Number of slots.
        chunk_tokens: Number of tokens of a chunk.
        chunks: How many chunks are computed at once.

    Attributes:
        prefilling: The prompts in slots that are not computed to their end, by slot.
        decoding: Those that are, whose texts are written.
    """

    def __init__(self, waiting: Iterable[Sequence], slots: int, chunk_tokens: int, chunks: int) -> None:
        self._waiting = deque(waiting)
        self._chunk_tokens, self._chunks = chunk_tokens, chunks
        self._held: list[Nodes] = [()] * slots
        self._free = deque(range(slots))
        self.prefilling: dict[int, Sequence] = {}
        self.decoding: dict[int, Sequence] = {}

    def __bool__(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._waiting or self.prefilling or self.decoding)

    @property
    def unfinished(self) -> list[Sequence]:
        """All prompts that have not left, those in slots first."""
        return [*self.decoding.values(), *self.prefilling.values(), *self._waiting]

    def sequence(self, slot: int) -> Sequence:
        """Returns the prompt in a slot."""
        return self.prefilling.get(slot) or self.decoding[slot]

    def held_tokens(self, slot: int) -> int:
        """Returns for how many tokens of a slot without a decoding prompt keys and values must stay."""
        sequence = self.prefilling.get(slot)
        return sequence.computed if sequence else len(self._held[slot]) * self._chunk_tokens

    @property
    def fills_a_batch(self) -> bool:
        """Whether it is time to compute chunks: a batch costs the same half full, and steps wait."""
        if self.prefilling or not self.decoding:
            return True
        admitted = islice(self._waiting, len(self._free))
        return sum(-(-len(each.request.prompt) // self._chunk_tokens) for each in admitted) >= self._chunks

    def next_prefill(self) -> Prefill:
        """Fills free slots and returns the next chunks to compute; none if there are none."""
        while self._free and self._waiting:
            slot, sequence = self._free.popleft(), self._waiting.popleft()
            assert slot not in self.prefilling
            assert slot not in self.decoding
            self._hold(slot, sequence, _common(self._held[slot], sequence.nodes))
            self.prefilling[slot] = sequence
        plan, begun = Prefill(), set[int]()
        for slot, sequence in self.prefilling.items():
            self._take_over(slot, sequence, plan)
            self._add_chunks(slot, sequence, plan, begun)
        assert len(plan.chunks) <= self._chunks
        assert plan.chunks or not self.prefilling, "a prompt waits for a node that nobody computes"
        for slot, sequence in self.prefilling.items():  # only now: this plan's copies come before its chunks
            self._held[slot] = sequence.nodes[: sequence.computed // self._chunk_tokens]
        for slot in plan.ready:
            self.decoding[slot] = self.prefilling.pop(slot)
        return plan

    def release(self, slot: int) -> None:
        """Takes a prompt out of its slot; its prefix stays until the slot is taken."""
        del self.decoding[slot]
        assert slot not in self._free
        self._free.append(slot)

    def forget(self, slot: int) -> None:
        """Takes a prompt out of its slot, which holds nothing any more."""
        self.release(slot)
        self._held[slot] = ()

    def _hold(self, slot: int, sequence: Sequence, count: int) -> None:
        """Notes that a slot holds so many of a prompt's nodes, and nothing else."""
        self._held[slot] = sequence.nodes[:count]
        sequence.computed = count * self._chunk_tokens

    def _take_over(self, slot: int, sequence: Sequence, plan: Prefill) -> None:
        """Copies the prefix that another slot holds beyond what this one has."""
        shared = [_common(held, sequence.nodes) for held in self._held]
        count, start = max(shared), sequence.computed
        if count * self._chunk_tokens > start:
            plan.copies.append(Copy(shared.index(count), slot, start, count * self._chunk_tokens))
            self._hold(slot, sequence, count)

    def _add_chunks(self, slot: int, sequence: Sequence, plan: Prefill, begun: set[int]) -> None:
        """Adds the prompt's next chunks while there is room and no other slot has begun the same node."""
        prompt_tokens = len(sequence.request.prompt)
        while sequence.computed < prompt_tokens and len(plan.chunks) < self._chunks:
            place = sequence.computed // self._chunk_tokens
            if place < len(sequence.nodes):
                if sequence.nodes[place] in begun:
                    return  # the next plan copies it
                begun.add(sequence.nodes[place])
            tokens = min(self._chunk_tokens, prompt_tokens - sequence.computed)
            plan.chunks.append(Chunk(slot, sequence.computed, tokens))
            sequence.computed += tokens
        if sequence.computed == prompt_tokens:
            plan.ready[slot] = (len(plan.chunks) - 1) * self._chunk_tokens + tokens - 1


def _common(left: Nodes, right: Nodes) -> int:
    """Returns how many nodes two prompts share: who has a node has those before it."""
    return sum(map(eq, left, right))
