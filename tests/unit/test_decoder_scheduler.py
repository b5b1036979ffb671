"""The scheduler completes every prompt, computes what prompts share once, and nothing across sharing keys."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.generation import GenerationRequest
from inference.engines.torch.scheduler import Scheduler
from inference.engines.torch.sequence import Sequence, prefix_nodes

CHUNK = 4


def requests_of(prompts: list[list[int]], keys: list[str | None]) -> list[GenerationRequest]:
    return [
        GenerationRequest(np.array(prompt, np.int64), sharing_key=key)
        for prompt, key in zip(prompts, keys, strict=True)
    ]


def run(requests: list[GenerationRequest], slots: int, chunks: int) -> tuple[list[int], int]:
    """Runs prompts through slots that hold the tokens themselves in place of keys and values.

    Returns:
        The prompts in the order in which they were complete, and how many chunks were computed.
    """
    nodes = prefix_nodes(requests, CHUNK)
    order = sorted(range(len(requests)), key=lambda index: nodes[index])
    sequences = [Sequence(index, requests[index], nodes[index], 1) for index in order]
    scheduler = Scheduler(sequences, slots, CHUNK, chunks)
    held = np.full((slots, 64), -1)
    done, computed = list[int](), 0
    while scheduler:
        plan = scheduler.next_prefill() if scheduler.fills_a_batch else None
        if plan and plan.chunks:
            for copy in plan.copies:
                held[copy.target, copy.start : copy.end] = held[copy.source, copy.start : copy.end]
            computed += len(plan.chunks)
            for chunk in plan.chunks:
                prompt = scheduler.sequence(chunk.slot).request.prompt
                assert held[chunk.slot, : chunk.start].tolist() == prompt[: chunk.start].tolist()
                end = chunk.start + chunk.tokens
                held[chunk.slot, chunk.start : end] = prompt[chunk.start : end]
            for slot, row in plan.ready.items():
                prompt = scheduler.sequence(slot).request.prompt
                assert held[slot, : len(prompt)].tolist() == prompt.tolist()
                assert plan.chunks[row // CHUNK].slot == slot
        else:
            for slot in range(slots):  # a slot without a text may be written to after what it must keep
                if slot not in scheduler.decoding:
                    held[slot, scheduler.held_tokens(slot)] = -1
            slot = max(scheduler.decoding)
            done.append(scheduler.decoding[slot].index)
            held[slot, len(scheduler.decoding[slot].request.prompt)] = -2
            scheduler.release(slot)
    return done, computed


PROMPTS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=40), min_size=1, max_size=30)


@given(prompts=PROMPTS, slots=st.integers(1, 6), chunks=st.integers(1, 4), data=st.data())
def test_every_prompt_is_completed_once_from_its_own_tokens(
    prompts: list[list[int]], slots: int, chunks: int, data: st.DataObject
) -> None:
    keys = [data.draw(st.sampled_from(["one", "two", None])) for _ in prompts]
    done, _ = run(requests_of(prompts, keys), slots, chunks)
    assert sorted(done) == list(range(len(prompts)))


@given(prompts=PROMPTS)
def test_a_node_is_computed_once_where_there_is_a_slot_for_each_prompt(prompts: list[list[int]]) -> None:
    requests = requests_of(prompts, ["key"] * len(prompts))
    nodes = {node for each in prefix_nodes(requests, CHUNK) for node in each}
    _, computed = run(requests, len(prompts), 4)
    assert computed == len(nodes) + len(prompts)  # and the last chunk of each


def test_in_the_order_of_the_trie_two_slots_are_enough_to_share_a_common_beginning() -> None:
    beginning = list(range(20))
    requests = requests_of([[*beginning, 100 + number] for number in range(50)], ["key"] * 50)
    _, computed = run(requests, 2, 4)
    assert computed == 5 + 50


@given(prompts=PROMPTS)
def test_nothing_is_shared_across_keys_or_without_one(prompts: list[list[int]]) -> None:
    half = len(prompts)
    for one, two in (("one", "two"), (None, None)):
        keys = [one if number < half else two for number in range(2 * half)]
        nodes = prefix_nodes(requests_of([*prompts, *prompts], keys), CHUNK)
        first, second = ({node for each in part for node in each} for part in (nodes[:half], nodes[half:]))
        assert not first & second
