"""How long a run takes and how much disk: measured from this lake's earlier runs, else assumed and said so.

Lineage lives in commits, so the commits of a run say when each of its tables was done.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS, DOCUMENTS, DUPLICATES, EMBEDDINGS, RAW_DOCUMENTS, RELEASES, SIGNATURES
from orchestration.preview.text_shares import SUFFIX_SQL, TextShares, measured_text_shares

ASSUMED_START_S = 20.0
ASSUMED_BYTES_PER_S = 30_000.0
ASSUMED_DISK_FACTOR = 8.0
"""Of text, on two cores: what starting takes, what is read to released per second, and the bytes of tables
and index per byte of text."""

_STAGES = (RAW_DOCUMENTS, DOCUMENTS, SIGNATURES, DUPLICATES, CHUNKS, EMBEDDINGS, RELEASES)
_FEW_BYTES = 100_000
"""A run over less says how long a start takes, and little about a byte."""
_CLOCK = timedelta(seconds=1)

_READINGS = f"""
    select fetched_at, {SUFFIX_SQL.format("uri")} as kind, sum(coalesce(size_bytes, 0))::bigint as size_bytes
    from raw where not deleted and content_sha256 is not null group by all order by all
"""
_STORED = f"""
    select {SUFFIX_SQL.format("uri")} as kind, sum(size_bytes)::bigint as size_bytes
    from (select uri, arg_max(size_bytes, revision) as size_bytes, arg_max(deleted, revision) as gone
          from raw where body is not null or deleted group by doc_id, uri) where not gone group by kind
"""


@dataclass(frozen=True)
class MeasuredRun:
    """One earlier run: the text that it read, its seconds, and those after which each table was done."""

    text_bytes: int
    seconds: float
    done_s: dict[str, float]


@dataclass(frozen=True)
class RunRates:
    """What a run takes.

    Attributes:
        start_s: Seconds that any run takes.
        bytes_per_s: Bytes of text read to released per second.
        disk_factor: Bytes of tables and index per byte of text; bytes that are no text are kept as they are.
        basis: What this was measured on, or that it is assumed.
        stage_s_per_byte: Seconds of each table per byte of text, where they are known.
        shares: How much of the bytes of each kind of file is text.
    """

    start_s: float
    bytes_per_s: float
    disk_factor: float
    basis: str
    stage_s_per_byte: dict[str, float]
    shares: TextShares

    def seconds(self, text_bytes: int) -> float:
        """Returns the seconds that a run takes which reads so many bytes of text."""
        return self.start_s + text_bytes / self.bytes_per_s

    def disk_bytes(self, size_bytes: int, text_bytes: int) -> int:
        """Returns the disk that the tables and the index take for so many bytes, of which some are text."""
        return round(size_bytes - text_bytes + text_bytes * self.disk_factor)


def run_rates(lake: Lake, home: Path) -> RunRates:
    """Returns what runs of a lake take, from its largest run; assumed where it had none of some size."""
    shares = measured_text_shares(lake)
    runs = [run for run in measured_runs(lake, shares) if run.seconds > 0]
    largest = max(runs, key=lambda run: run.text_bytes, default=None)
    if largest is None or largest.text_bytes < _FEW_BYTES:
        basis = (
            f"assumed: {ASSUMED_START_S:.0f} s, then {ASSUMED_BYTES_PER_S / 1000:.0f} kB of text per second "
            f"on two cores, and {ASSUMED_DISK_FACTOR:.0f} bytes of disk per byte of text; no run of this "
            "lake has read enough to tell"
        )
        return RunRates(ASSUMED_START_S, ASSUMED_BYTES_PER_S, ASSUMED_DISK_FACTOR, basis, {}, shares)
    small = [run.seconds for run in runs if run.text_bytes < _FEW_BYTES]
    start_s = min([*small, largest.seconds / 2])
    stages, before = dict[str, float](), 0.0
    for table in _STAGES:
        if table.name in largest.done_s:
            stages[table.name] = max(0.0, largest.done_s[table.name] - before) / largest.text_bytes
            before = max(before, largest.done_s[table.name])
    basis = (
        f"measured: a run of this lake read {largest.text_bytes / 1e6:.1f} MB of text in "
        f"{largest.seconds:.0f} s"
    )
    stored = stored_sizes(lake)
    text_bytes = shares.text_bytes(stored)
    disk_bytes = _disk_bytes([Path(lake.root), (home / "postgres").resolve()])
    return RunRates(
        start_s,
        largest.text_bytes / (largest.seconds - start_s),
        max(1.0, (disk_bytes - (sum(stored.values()) - text_bytes)) / max(1, text_bytes)),
        basis,
        stages,
        shares,
    )


def stored_sizes(lake: Lake) -> dict[str, int]:
    """Returns the bytes of the documents that are there, as they came, by the kind of their file."""
    rows = lake.query(_STORED, raw=lake.delta(RAW_DOCUMENTS.name)).to_pylist()
    return {row["kind"]: row["size_bytes"] or 0 for row in rows}


def measured_runs(lake: Lake, shares: TextShares) -> list[MeasuredRun]:
    """Returns the runs that read something, oldest first."""
    try:
        rows = lake.query(_READINGS, raw=lake.delta(RAW_DOCUMENTS.name)).to_pylist()
        commits = {table.name: list(lake.commits(table.name)) for table in _STAGES}
    except KeyError:  # a lake that has not been made
        return []
    readings = dict[datetime, dict[str, int]]()
    for row in rows:
        readings.setdefault(row["fetched_at"], {})[row["kind"]] = row["size_bytes"]
    found = []
    for began, sizes in readings.items():
        if began.tzinfo is None:  # as older Headwaters wrote it, in UTC
            began = began.replace(tzinfo=UTC)
        own = [each for each in commits[RAW_DOCUMENTS.name] if each.committed_at + _CLOCK >= began]
        if not own:
            continue
        run_id = min(own, key=lambda commit: commit.committed_at).lineage.run_id
        done_s = {
            name: max(times)
            for name, each in commits.items()
            if (
                times := [
                    (c.committed_at - began).total_seconds() for c in each if c.lineage.run_id == run_id
                ]
            )
        }
        found.append(MeasuredRun(shares.text_bytes(sizes), max(done_s.values()), done_s))
    return found


def _disk_bytes(folders: Sequence[Path]) -> int:
    sizes = 0
    for folder in folders:
        for parent, _, names in os.walk(folder):
            for name in names:
                try:
                    sizes += (Path(parent) / name).lstat().st_size
                except OSError:  # it went meanwhile, or is another user's
                    continue
    return sizes
