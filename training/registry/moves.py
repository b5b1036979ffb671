"""To which version does a rollback go back? One that was gone back from is not gone back to."""

from collections.abc import Iterable
from typing import TypeVar

from retrieval.index.types import LiveHistoryEntry
from training.registry.versions import ModelDecision

Step = TypeVar("Step", int, str)


def versions_before(decisions: Iterable[ModelDecision], live: int | None) -> list[int]:
    """Returns the adapters to which one rollback after another goes back, the next first; then the base.

    Args:
        decisions: What was decided about the versions, oldest first.
        live: The version that answers; None for the base.
    """
    if live is None:
        return []
    path = list[int]()
    for each in decisions:
        if each.decision == "promoted":
            path.append(each.version)
        elif each.decision in ("rolled_back", "stepped_down"):
            path = _below(path, each.version)
    # The alias is the truth: a process may have been killed before it recorded its last move.
    return _below(path, live)[::-1]


def releases_to_live(history: Iterable[LiveHistoryEntry], decisions: Iterable[ModelDecision]) -> list[str]:
    """Returns the releases that led to the live one, oldest first, it included.

    Args:
        history: Which release went live when, oldest first.
        decisions: What was decided about versions; a promotion to a release of before goes on, not back.
    """
    promotions = {each.live_since for each in decisions if each.decision == "promoted"}
    path = list[str]()
    for entry in history:
        if entry.live_since not in promotions:
            path = _below(path, entry.release_id)
        path.append(entry.release_id)
    return path


def _below(path: list[Step], step: Step) -> list[Step]:
    """Returns a path up to the last time that it came to a step, without it; all of it if it never did."""
    return path[: len(path) - 1 - path[::-1].index(step)] if step in path else path
