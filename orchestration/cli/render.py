"""Formats results for the terminal."""

import re
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text
from rich.tree import Tree

from orchestration.tracing.nodes import Trace, TraceNode
from retrieval.index.types import IndexRelease

_ID_SHOWN = 12
_HIDDEN = {
    "inputs",
    "versions",
    "metrics",
    "code_version",
    "doc_id",
    "quote",
    "content_sha256",
    "text_sha256",
}
"""Details that `--json` has in full and a tree has no room for."""


def render_funnel(funnel: dict[str, int]) -> str:
    """Returns the funnel (documents by outcome) in one line, as an equation."""
    return (
        f"{funnel['raw']} raw = {funnel['documents']} documents + {funnel['exact_duplicates']} exact + "
        f"{funnel['near_duplicates']} near duplicates + {funnel['quarantined']} quarantined; "
        f"{funnel['chunks']} chunks, {funnel['embedded']} embedded"
    )


def render_release_row(release: IndexRelease, live: IndexRelease | None) -> dict[str, Any]:
    """Returns a release as a row of a printed table."""
    metrics = release.details.metrics
    return {
        "release": release.release_id,
        "live": "●" if live is not None and release.release_id == live.release_id else "",
        "released_at": release.released_at.isoformat(),
        "generation": release.generation,
        "epoch": release.epoch,
        "metrics": ", ".join(f"{n} {metrics[n]:.3f}" for n in ("ndcg@10", "recall@10") if n in metrics),
        "versions": " ".join(f"{name}@{version}" for name, version in release.details.versions.items()),
    }


def render_answer(question: str, answer: dict[str, Any]) -> RenderableType:
    """Returns an answer with its numbered citations as text."""
    body = Text(answer["answer"])
    for number, citation in enumerate(answer["citations"], 1):
        body.append(f"\n\n[{number}] ", style="bold")
        body.append(f"{citation['uri']}  chars {citation['char_start']}–{citation['char_end']}", style="cyan")
    footer = f"answer {answer['answer_id']} · release {answer['release']}"
    return Panel(body, title=Text(question), title_align="left", subtitle=footer, subtitle_align="right")


def render_trace(trace: Trace) -> RenderableType:
    """Returns a trace as two printed trees: backward and forward."""
    parts: list[RenderableType] = []
    for name, nodes in (("made from", trace.backward), ("made from it", trace.forward)):
        if nodes:
            root = Tree(Text(f"{trace.kind} {trace.id} — {name}", style="bold"))
            for node in nodes:
                _grow(root, node)
            parts.append(root)
    if trace.verified is not None:
        verdict = "every hash and span holds" if trace.verified else "something does not hold"
        parts.append(Text(f"verified: {verdict}", style="green" if trace.verified else "bold red"))
    return Group(*parts)


def _grow(branch: Tree, node: TraceNode) -> None:
    label = Text()
    label.append(node.kind, style="bold")
    label.append(f" {_short(node.id)} ", style="cyan")
    details = {
        key: value
        for key, value in node.details.items()
        if key not in _HIDDEN and value not in (None, "", [])
    }
    label.append(" ".join(f"{key}={_short(str(value))}" for key, value in details.items()), style="dim")
    for name, holds in node.checks.items():
        label.append(f" {'✓' if holds else '✗'} {name}", style="green" if holds else "bold red")
    if "quote" in node.details:
        label.append(f"\n“{' '.join(node.details['quote'].split())}”", style="italic")
    grown = branch.add(label)
    for child in node.children:
        _grow(grown, child)


def _short(text: str) -> str:
    """Hashes and run ids by their beginning; anything else whole."""
    return text[:_ID_SHOWN] if re.fullmatch(r"[0-9a-f]{32,}|[0-9a-f-]{36}", text) else text
