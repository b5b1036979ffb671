"""Formats results for the terminal."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text
from rich.tree import Tree

from common.counts import counted
from orchestration.preview.run_preview import RunPreview
from orchestration.tracing.nodes import Trace, TraceNode
from retrieval.index.types import IndexRelease

if TYPE_CHECKING:
    from assets.sources.source_config import Source
    from orchestration.operations.ingest import RunSummary

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
    """Returns the funnel (documents by outcome) in one line: an equation, and the rows that the UI shows."""
    duplicates = funnel["exact_duplicates"] + funnel["near_duplicates"]
    rows = f" (silver.documents: {funnel['documents'] + duplicates:,}, with duplicates)" if duplicates else ""
    return (
        f"{funnel['raw']:,} raw = {counted(funnel['documents'], 'document')} + "
        f"{funnel['exact_duplicates']:,} exact + {counted(funnel['near_duplicates'], 'near duplicate')} + "
        f"{funnel['quarantined']:,} quarantined{rows}; "
        f"{counted(funnel['chunks'], 'chunk')}, {funnel['embedded']:,} embedded"
    )


_SHOWN_QUARANTINED = 10


def render_summary(summary: "RunSummary") -> str:
    """Returns what stands after a run: the funnel, what it quarantined and why, and the release."""
    lines = [render_funnel(summary.funnel)]
    if summary.quarantined:
        lines.append("quarantined by this run:")
        shown = summary.quarantined[:_SHOWN_QUARANTINED]
        lines += [f"  {each.uri}: {each.reason}" for each in shown]
        if rest := len(summary.quarantined) - len(shown):
            lines.append(f"  … and {counted(rest, 'other')}")
    if summary.kept_out:
        lines.append(
            f"{summary.kept_out:,} quarantined: `headwater quarantine list` says why, and what helps"
        )
    if summary.unfit:
        reasons = "select uri, training_unfit_reasons from silver.documents where not training_fit"
        lines.append(f'{summary.unfit:,} found, but not fit for training: `headwater sql "{reasons}"`')
    lines += [f"{each}: `headwater models list`" for each in summary.models]
    if summary.unread_sources:
        names = ", ".join(sorted(summary.unread_sources))
        lines.append(f"not read, as said above, and their documents are as they were: {names}")
    if summary.verdict:
        lines.append(f"release gate: {summary.verdict}")
    if summary.held:
        lines.append(f"no other goes live: {summary.held}; `headwater hold --off` ends that")
    if summary.release:
        found = summary.searchable
        lines.append(
            f"live: release {summary.release}; {counted(found['documents'], 'document')}, "
            f'{counted(found["chunks"], "chunk")} can be searched: `headwater ask "…"`'
        )
    return "\n".join(lines)


def render_preview_rows(found: RunPreview) -> list[dict[str, Any]]:
    """Returns what a run would read, a row per source that can be read."""
    return [
        {
            "source": each.name,
            "kind": each.kind,
            **{
                name: f"{getattr(each, name):,}"
                for name in ("new", "changed", "again", "unchanged", "deleted")
            },
            "bytes": "not known" if each.size_bytes is None else f"{each.size_bytes:,}",
            "files": ", ".join(f"{kind} {seen.files:,}" for kind, seen in each.by_kind.items()),
        }
        for each in found.sources
        if each.fault is None
    ]


def render_preview(found: RunPreview) -> str:
    """Returns what can not be read, what is done again, and about how long a run takes and how much disk."""
    minutes = found.seconds / 60
    duration = f"{minutes:.0f} minutes" if minutes >= 2 else f"{found.seconds:.0f} s"
    read = f"{counted(found.files, 'file')}, {_size(found.size_bytes)}, would be read"
    if found.text_bytes < found.size_bytes:
        read += f" ({_size(found.text_bytes)} of them text)"
    lines = [
        *(f"can not be read: {each.fault}" for each in found.sources if each.fault is not None),
        *found.rebuilds,
        f"{read}, in about {duration}; tables and index would take about {_size(found.disk_bytes)}; "
        f"{_size(found.free_disk_bytes)} are free",
        f"({found.basis})",
        *_others_read(found),
        "nothing was written",
    ]
    return "\n".join(lines)


def _others_read(found: RunPreview) -> Iterator[str]:
    """Yields a line about the sources that were not asked about."""
    if found.other_sources:
        others = counted(len(found.other_sources), "other source")
        yield f"{others} would be brought up to date as well: `headwater run --dry-run` tells of all"


def _size(size_bytes: int) -> str:
    """Returns a number of bytes in the unit that suits it."""
    unit, factor = next(
        ((unit, factor) for unit, factor in (("GB", 1e9), ("MB", 1e6)) if size_bytes >= factor), ("kB", 1e3)
    )
    return f"{size_bytes / factor:,.1f} {unit}"


_QUERY_SHOWN = 100


def render_source_row(source: "Source") -> dict[str, Any]:
    """Returns a source as a row of a printed table."""
    return {
        "name": source.name,
        "kind": source.kind,
        "location": source.location,
        "reads": "; ".join(_reads(source)),
        "tenant": source.tenant,
        "groups": ", ".join(source.groups) or "everybody",
        "license": source.license or "not known",
    }


def _reads(source: "Source") -> Iterator[str]:
    """Yields what is read of a source, as it was configured."""
    if source.kind in ("files", "rows") or source.glob != "**/*":
        yield f"files {source.glob}"
    columns = {"text": source.text_column, "id": source.id_column, "title": source.title_column}
    login = source.git or source.sql
    if source.git is not None:
        yield f"branch {source.git.branch}" if source.git.branch else "its HEAD"
    elif source.sql is not None:
        query = " ".join(source.sql.query.split())
        yield query if len(query) <= _QUERY_SHOWN else f"{query[: _QUERY_SHOWN - 1]}…"
        columns = {
            "text": ", ".join(source.sql.text_columns),
            "id": source.sql.id_column,
            "title": source.sql.title_column,
            "URL": source.sql.url_column,
            "cursor": source.sql.cursor_column,
        }
    elif source.sitemap is not None:
        limits = source.sitemap
        yield f"at most {counted(limits.max_pages, 'page')}, {limits.pages_per_second:g} per second"
        if limits.private_addresses:
            yield "private addresses too"
    yield from (f"{name} in {column}" for name, column in columns.items() if column)
    if login is not None and login.user:
        yield f"as {login.user}"
    if login is not None and login.password_env:
        yield f"password in {login.password_env}"
    if source.questions:
        yield f"questions {source.questions}"


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
    if answer.get("outcome") == "truncated" and answer["citations"]:
        body.append("\n\nthe reply was cut off at its length limit: this is what was complete")
    if left_out := answer.get("passages_left_out"):
        body.append(f"\n\n{left_out} of the passages found had no room in the prompt and were not read")
    footer = f"answer {answer['answer_id']} · release {answer['release']}"
    title = Text(question, overflow="ellipsis")
    return Panel(body, title=title, title_align="left", subtitle=footer, subtitle_align="right")


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
    if node.unverifiable:
        label.append(f" not verifiable: {node.unverifiable}", style="yellow")
    if "quote" in node.details:
        label.append(f"\n“{' '.join(node.details['quote'].split())}”", style="italic")
    grown = branch.add(label)
    for child in node.children:
        _grow(grown, child)


def _short(text: str) -> str:
    """Hashes and run ids by their beginning; anything else whole."""
    return text[:_ID_SHOWN] if re.fullmatch(r"[0-9a-f]{32,}|[0-9a-f-]{36}", text) else text
