"""A trace: two trees of nodes, one to what a thing was made from and one to what was made from it."""

from dataclasses import dataclass, field
from typing import Any, Literal

TraceKind = Literal[
    "answer",
    "chunk",
    "document",
    "uri",
    "content",
    "run",
    "release",
    "training_example",
    "training_set",
    "model",
]


class Untraceable(LookupError):
    """Nothing that can be traced has that id."""


@dataclass
class TraceNode:
    """One thing in a trace, with what it was made from or what was made from it.

    Attributes:
        kind: What it is: `answer`, `release`, `chunk`, `document`, `bytes`, `embedding`, `commit` …
        id: Its identity.
        details: What is known of it, as the JSON output shows it: `table`, `run_id`, `code_version` …
        children: The next step of the walk.
        checks: Whether each thing that was recomputed from the stored bytes holds, by the check's name.
        unverifiable: Why nothing could be recomputed, because what it is compared with is no longer kept.
    """

    kind: str
    id: str
    details: dict[str, Any] = field(default_factory=dict)
    children: list["TraceNode"] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)
    unverifiable: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the node and all below it as plain objects."""
        found = {"kind": self.kind, "id": self.id, **self.details}
        if self.checks:
            found["checks"] = self.checks
        if self.unverifiable:
            found["unverifiable"] = self.unverifiable
        if self.children:
            found["children"] = [child.to_dict() for child in self.children]
        return found

    def has_checks(self) -> bool:
        """True when there is a check here or below."""
        return bool(self.checks) or any(child.has_checks() for child in self.children)

    def holds(self) -> bool:
        """True when every check here and below holds."""
        return all(self.checks.values()) and all(child.holds() for child in self.children)

    def unverifiable_nodes(self) -> int:
        """Returns of how many nodes here and below nobody can tell whether they hold."""
        return bool(self.unverifiable) + sum(child.unverifiable_nodes() for child in self.children)


@dataclass
class Trace:
    """The trace of one thing: what it was made from, and what was made from it.

    Attributes:
        id: The id that was asked for.
        kind: What has that id.
        backward: What it was made from, down to the source's bytes.
        forward: What was made from it.
        verified: Whether every hash and span holds against the stored bytes; None when none was checked, or
            all that could be holds and not all could be.
        unverifiable: How many citations could not be checked.
    """

    id: str
    kind: TraceKind
    backward: list[TraceNode]
    forward: list[TraceNode]
    verified: bool | None
    unverifiable: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the trace as `headwater trace --json` prints it."""
        return {
            "id": self.id,
            "kind": self.kind,
            "backward": [node.to_dict() for node in self.backward],
            "forward": [node.to_dict() for node in self.forward],
            "verified": self.verified,
            "unverifiable": self.unverifiable,
        }
