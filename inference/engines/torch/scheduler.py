"""Which prompt is in which slot, and what is computed next."""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, TypeVar

from inference.engines.torch.attention import Chunk
from inference.engines.torch.prefix_trie import Nodes

T = TypeVar("T")


@dataclass(eq=False)
class Sequence(Generic[T]):
    """A prompt on its way: `work` is the caller's.

    Attributes:
        prompt_tokens: Its length.
        nodes: Its nodes in the trie of prefixes.
        work: What the caller keeps about it.
        computed: For how many tokens of its prompt its slot holds keys and values.
    """

    prompt_tokens: int
    nodes: Nodes
    work: T
    computed: int = 0


@dataclass(frozen=True)
class Copy:
    """Keys and values that one slot takes over from another, from the first token to before the last."""

    source: int
    target: int
    start: int
    end: int


@dataclass
class Prefill(Generic[T]):
    """What is computed of prompts at once.

    Attributes:
        copies: What is copied first.
        chunks: What is computed, at most as many as the batch has rows.
        ready: The slots whose prompts are complete after, with the row that holds their last token.
    """

    copies: list[Copy] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    ready: dict[int, int] = field(default_factory=dict)


class Scheduler(Generic[T]):
    """Gives prompts slots and their chunks turns, and computes no node twice that a slot holds.

    After a prompt has left its slot, the slot still holds the keys and values of its prefix until another
    takes it; what leaves first is taken first. So prompts in the trie's depth-first order find their prefixes
    in a slot.

    Args:
        waiting: The prompts, in the trie's order.
        slots: Number of slots.
        chunk_tokens: Number of tokens of a chunk.
        chunks: How many chunks are computed at once.
    """

    def __init__(self, waiting: Iterable[Sequence[T]], slots: int, chunk_tokens: int, chunks: int) -> None:
        self._waiting = deque(waiting)
        self._chunk_tokens, self._chunks = chunk_tokens, chunks
        self._held: list[Nodes] = [()] * slots
        self._holders: defaultdict[int, set[int]] = defaultdict(set)
        self._free = deque(range(slots))
        self.prefilling: dict[int, Sequence[T]] = {}
        self.decoding: dict[int, Sequence[T]] = {}

    def __bool__(self) -> bool:
        """Whether anything is left to do."""
        return bool(self._waiting or self.prefilling or self.decoding)

    @property
    def unfinished(self) -> list[Sequence[T]]:
        """All prompts that have not left, those in slots first."""
        return [*self.decoding.values(), *self.prefilling.values(), *self._waiting]

    def sequence(self, slot: int) -> Sequence[T]:
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
        return sum(-(-each.prompt_tokens // self._chunk_tokens) for each in admitted) >= self._chunks

    def next_prefill(self) -> Prefill[T]:
        """Fills free slots and returns the next chunks to compute; none if there are none."""
        while self._free and self._waiting:
            slot, sequence = self._free.popleft(), self._waiting.popleft()
            assert slot not in self.prefilling
            assert slot not in self.decoding
            self._hold(slot, sequence.nodes[: _common(self._held[slot], sequence.nodes)])
            sequence.computed = len(self._held[slot]) * self._chunk_tokens
            self.prefilling[slot] = sequence
        plan: Prefill[T] = Prefill()
        begun: set[int] = set()
        for slot, sequence in self.prefilling.items():
            self._take_over(slot, sequence, plan)
            self._add_chunks(slot, sequence, plan, begun)
        assert len(plan.chunks) <= self._chunks
        assert plan.chunks or not self.prefilling, "a prompt waits for a node that nobody computes"
        for slot, sequence in self.prefilling.items():  # only now: this plan's copies come before its chunks
            self._hold(slot, sequence.nodes[: sequence.computed // self._chunk_tokens])
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
        self._hold(slot, ())

    def _hold(self, slot: int, nodes: Nodes) -> None:
        """Notes which nodes a slot holds now."""
        for node in set(self._held[slot]) - set(nodes):
            self._holders[node].remove(slot)
            if not self._holders[node]:
                del self._holders[node]
        for node in nodes:
            self._holders[node].add(slot)
        self._held[slot] = nodes

    def _take_over(self, slot: int, sequence: Sequence[T], plan: Prefill[T]) -> None:
        """Copies the prefix that other slots hold beyond what this one has."""
        first = place = sequence.computed // self._chunk_tokens
        while place < len(sequence.nodes) and sequence.nodes[place] in self._holders:
            place += 1
        if place > first:  # who holds a node holds those before it
            source, end = min(self._holders[sequence.nodes[place - 1]]), place * self._chunk_tokens
            assert source != slot
            plan.copies.append(Copy(source, slot, sequence.computed, end))
            self._hold(slot, sequence.nodes[:place])
            sequence.computed = end

    def _add_chunks(self, slot: int, sequence: Sequence[T], plan: Prefill[T], begun: set[int]) -> None:
        """Adds the prompt's next chunks while there is room and no other slot has begun the same node."""
        while sequence.computed < sequence.prompt_tokens and len(plan.chunks) < self._chunks:
            place = sequence.computed // self._chunk_tokens
            if place < len(sequence.nodes):
                if sequence.nodes[place] in begun:
                    return  # the next plan copies it
                begun.add(sequence.nodes[place])
            tokens = min(self._chunk_tokens, sequence.prompt_tokens - sequence.computed)
            plan.chunks.append(Chunk(slot, sequence.computed, tokens))
            sequence.computed += tokens
        if sequence.computed == sequence.prompt_tokens:
            plan.ready[slot] = (len(plan.chunks) - 1) * self._chunk_tokens + tokens - 1


def _common(left: Nodes, right: Nodes) -> int:
    """Returns how many nodes two prompts share from the first."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count
