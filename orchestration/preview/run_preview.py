"""What a run would do, found without writing anything: `--dry-run` of `headwater ingest` and `run`."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from assets.bronze import sources_behind
from assets.lake.lake import Lake
from assets.lake.tables import RAW_DOCUMENTS
from assets.pending_rebuilds import PendingRebuild, pending_rebuilds
from assets.sources.revisions import (
    STATE,
    retried_source_files,
    stale_source_files,
    vanished_source_documents,
)
from assets.sources.source_config import CONNECTED_KINDS, Source, SourceError
from assets.sources.source_reader import list_local_source, list_source, preview_connected_source
from common.counts import counted
from orchestration.preview.measured_rates import RunRates, run_rates, stored_sizes
from orchestration.settings import Settings
from retrieval.embedding.embedding_model import EmbeddingModel


@dataclass(frozen=True)
class KindPreview:
    """How many files of one kind would be read, and their bytes; NULL where only the source knows."""

    files: int
    size_bytes: int | None


@dataclass(frozen=True)
class SourcePreview:
    """What a run would read of one source.

    Attributes:
        name: The source's name.
        kind: Its kind.
        new: Files that the lake has not read yet.
        changed: Files that changed since it read them; of a website, those that it asks about.
        again: Files that have not changed, and are read again: after an upgrade, where they could not be read
            the last time, or because their source does not tell whether they have changed.
        unchanged: Files that are not read.
        deleted: Documents that are no longer there.
        size_bytes: The bytes of what is read; None where only the source knows.
        by_kind: What is read by the extension of its names.
        fault: Why the source can not be read; None if it can.
    """

    name: str
    kind: str
    new: int = 0
    changed: int = 0
    again: int = 0
    unchanged: int = 0
    deleted: int = 0
    size_bytes: int | None = 0
    by_kind: dict[str, KindPreview] = field(default_factory=dict)
    fault: str | None = None


@dataclass(frozen=True)
class RunPreview:
    """What a run would do, as `headwater ingest --dry-run --json` prints it.

    Attributes:
        sources: What it would read of each source that was asked about.
        other_sources: The names of the others that it would bring up to date as well.
        files: How many files it would read.
        size_bytes: Their bytes, as far as they are known.
        text_bytes: About how many of these are text, from which the time follows.
        seconds: About how long it would take.
        disk_bytes: About how much disk it would take.
        free_disk_bytes: How much is free where the state folder is, or would be.
        basis: What time and disk are reckoned from.
        rebuilds: What an upgrade or a setting makes it do again, a sentence each.
    """

    sources: list[SourcePreview]
    other_sources: list[str]
    files: int
    size_bytes: int
    text_bytes: int
    seconds: float
    disk_bytes: int
    free_disk_bytes: int
    basis: str
    rebuilds: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Returns it as JSON has it."""
        return asdict(self)


def preview_run(
    settings: Settings, known: Sequence[Source], only: Sequence[Source] | None = None
) -> RunPreview:
    """Returns what a run would do, and writes nothing in the state folder.

    Args:
        settings: The settings of the state folder, which need not be there.
        known: The sources of the state folder.
        only: The sources to tell of, known or not; None for all that are known, and those that were removed.
    """
    sources = known if only is None else only
    with _lake_to_read(settings) as lake:
        state = _state(lake)
        made = _is_made(lake, RAW_DOCUMENTS.name)
        behind = sources_behind(lake, settings.recipe, sources) if made else set()
        found, left = list[SourcePreview](), state
        for source in sources:
            ours = pc.and_(pc.equal(left["tenant"], source.tenant), pc.equal(left["source"], source.name))
            ours_before, left = left.filter(ours), left.filter(pc.invert(ours))
            try:
                found.append(_source_preview(lake, source, ours_before, source.name in behind))
            except SourceError as error:
                found.append(SourcePreview(source.name, source.kind, fault=str(error)))
        others = [source.name for source in known if source not in sources]
        if only is None:
            found += _removed_sources(left)
        rates = run_rates(lake, settings.home)
        rebuilds = _rebuilds(lake, settings)
        texts = [rates.shares.text_bytes(_sizes(each)) for each in found]
        fresh = [_fresh_share(each) for each in found]
        fresh_bytes = round(sum((s.size_bytes or 0) * share for s, share in zip(found, fresh, strict=True)))
        fresh_text = round(sum(text * share for text, share in zip(texts, fresh, strict=True)))
        seconds = rates.seconds(fresh_text) + rebuild_seconds(lake, rebuilds, rates)
        return RunPreview(
            sources=found,
            other_sources=others,
            files=sum(each.new + each.changed + each.again for each in found),
            size_bytes=sum(each.size_bytes or 0 for each in found),
            text_bytes=sum(texts),
            seconds=round(seconds, 1),
            disk_bytes=rates.disk_bytes(fresh_bytes, fresh_text),
            free_disk_bytes=shutil.disk_usage(_existing(settings.home)).free,
            basis=rates.basis,
            rebuilds=[str(each) for each in rebuilds],
        )


def rebuild_seconds(lake: Lake, rebuilds: Sequence[PendingRebuild], rates: RunRates) -> float:
    """Returns about how long it takes to make tables anew."""
    if not rebuilds:
        return 0.0
    text_bytes = rates.shares.text_bytes(stored_sizes(lake))
    if not rates.stage_s_per_byte:
        return text_bytes / rates.bytes_per_s
    return sum(rates.stage_s_per_byte.get(each.table, 0.0) * text_bytes for each in rebuilds)


def _sizes(source: SourcePreview) -> dict[str, int]:
    return {kind: seen.size_bytes or 0 for kind, seen in source.by_kind.items()}


def _fresh_share(source: SourcePreview) -> float:
    """Returns the share of what is read that is new or changed: the rest is read, and nothing comes of it."""
    return (source.new + source.changed) / max(1, source.new + source.changed + source.again)


def rebuild_lines(settings: Settings) -> list[str]:
    """Returns a line for each table that the next run makes anew, the last with the time; none if none."""
    with _lake_to_read(settings) as lake:
        rebuilds = _rebuilds(lake, settings)
        if not rebuilds:
            return []
        rates = run_rates(lake, settings.home)
        text_bytes = rates.shares.text_bytes(stored_sizes(lake))
        least_s, most_s = rebuild_seconds(lake, rebuilds, rates), rates.seconds(text_bytes)
        least, most = (max(1, round(seconds / 60)) for seconds in (least_s, max(least_s, most_s)))
        duration = f"that takes about {counted(least, 'minute')}"
        if most > least:
            duration += f", and up to {most} where texts come out otherwise and are embedded again"
        return [*(str(each) for each in rebuilds), f"{duration} ({rates.basis})"]


def _rebuilds(lake: Lake, settings: Settings) -> list[PendingRebuild]:
    if not _is_made(lake, RAW_DOCUMENTS.name) or not lake.version(RAW_DOCUMENTS.name):
        return []
    model: EmbeddingModel | None = None
    # An endpoint would have to be asked, and a quantised model to be made.
    if not settings.recipe.embedder.endpoint.url and settings.recipe.embedder.quantization == "none":
        with contextlib.suppress(OSError, ValueError):  # a run says what the model lacks, and this is none
            found_model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
            found_model.digest  # noqa: B018 - it reads the model
            model = found_model
    return pending_rebuilds(lake, settings.recipe, model)


@contextlib.contextmanager
def _lake_to_read(settings: Settings) -> Iterator[Lake]:
    """Yields the lake as it is, neither made nor migrated; what is cached goes to a folder that goes."""
    with tempfile.TemporaryDirectory(prefix="headwater-preview-") as scratch:
        yield Lake(
            settings.lake_root,
            settings.spark,
            Path(scratch),
            settings.data_docs_folder,
            settings.data_docs_url,
        )


def _is_made(lake: Lake, name: str) -> bool:
    try:
        lake.delta(name)
    except KeyError:
        return False
    return True


def _state(lake: Lake) -> pa.Table:
    """Returns the rows of `STATE`; a lake of an older Headwater may lack columns, which are NULL."""
    if not _is_made(lake, RAW_DOCUMENTS.name):
        return Lake.query(STATE, raw=RAW_DOCUMENTS.schema.empty_table())
    stored = lake.delta(RAW_DOCUMENTS.name)
    there = {each.name for each in stored.schema().fields}
    missing = "".join(
        f", null::varchar as {name}" for name in RAW_DOCUMENTS.schema.names if name not in there
    )
    return Lake.query(f"with raw as (select *{missing} from stored) {STATE}", stored=stored)


def _removed_sources(left: pa.Table) -> Iterator[SourcePreview]:
    """Yields the sources that are known no more, from the rows of `STATE` that belong to no other."""
    standing = left.filter(pc.invert(left["deleted"]))
    for name in sorted(set(standing["source"].to_pylist())):
        yield SourcePreview(name, "removed", deleted=pc.sum(pc.equal(standing["source"], name)).as_py())


def _source_preview(lake: Lake, source: Source, state: pa.Table, read_all: bool) -> SourcePreview:
    if source.kind in CONNECTED_KINDS:
        found = preview_connected_source(source, state)
        listing, stale = found.listing, found.read
    else:
        local = list_local_source(source)
        listing = list_source(lake.spark, source) if local is None else local
        stale = stale_source_files(listing, state)
    deleted = vanished_source_documents(listing, state).num_rows
    standing = state.filter(pc.invert(state["deleted"]))
    files = pc.list_element(pc.split_pattern(standing["uri"], "#", max_splits=1), 0)
    known = pc.sum(pc.is_in(stale["uri"], files)).as_py() or 0
    rest = listing.num_rows - stale.num_rows if read_all and source.kind in ("files", *CONNECTED_KINDS) else 0
    # Which pages of a website have changed only the site knows.
    retried = 0 if source.kind == "sitemap" else retried_source_files(stale, state)
    read = listing if rest else stale
    sizes = read["file_size_bytes"]
    return SourcePreview(
        name=source.name,
        kind=source.kind,
        new=stale.num_rows - known,
        changed=known - retried,
        again=rest + retried,
        unchanged=listing.num_rows - stale.num_rows - rest,
        deleted=deleted,
        size_bytes=None
        if read.num_rows and sizes.null_count == read.num_rows
        else pc.sum(sizes).as_py() or 0,
        by_kind=_by_kind(read) if source.kind != "sql" else {},
    )


def _by_kind(files: pa.Table) -> dict[str, KindPreview]:
    kinds: dict[str, list[int | None]] = {}
    for uri, size_bytes in zip(files["uri"].to_pylist(), files["file_size_bytes"].to_pylist(), strict=True):
        kinds.setdefault(PurePosixPath(uri).suffix.lower() or "no extension", []).append(size_bytes)
    return {
        kind: KindPreview(len(sizes), None if None in sizes else sum(size or 0 for size in sizes))
        for kind, sizes in sorted(kinds.items(), key=lambda item: -len(item[1]))
    }


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest one above it that is there."""
    return next(each for each in (folder, *folder.parents) if each.exists())
