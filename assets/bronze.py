"""Bronze: the unchanged bytes of every document of every source.

Rows of `bronze/raw_documents` are never changed: a changed document gets a new revision, a deleted one a
tombstone. So an old answer can be traced back to the bytes that it was made from.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from assets.dagster.metadata import asset_key, dagster_asset_options, dagster_result
from assets.dagster.sources import (
    SOURCE_DOCUMENTS,
    SOURCES,
    materialization_of,
    record_sources,
    sources_state_digest,
)
from assets.engine.step import begin_step, open_relations
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import RAW_DOCUMENTS
from assets.parsing.content_type import KINDS_VERSION
from assets.parsing.sandbox import ParserLimits
from assets.recipe import Recipe
from assets.sources.connectors.git_repository import remove_unclaimed_mirrors
from assets.sources.connectors.reading import source_scratch_folder
from assets.sources.revisions import (
    STATE,
    check_source_shrink,
    define_revisions,
    earlier_revisions,
    stale_source_files,
    tombstones,
    vanished_source_documents,
)
from assets.sources.source_config import CONNECTED_KINDS, Source, SourceError
from assets.sources.source_reader import (
    list_local_source,
    list_source,
    read_connected_source,
    read_local_source,
    read_source,
    source_state_digest,
)
from assets.sources.source_registry import SourceRegistry
from common.ids import config_digest
from common.progress import Progress

logger = logging.getLogger(__name__)

SOURCES_READ = "sources_read"
"""The check of `bronze/raw_documents` that fails, as a warning, while a source can not be read."""


def raw_documents_digest(recipe: Recipe) -> str:
    """Returns a digest of what decides which documents a file is, besides its bytes."""
    return config_digest(KINDS_VERSION, recipe.parser)


def sources_behind(lake: Lake, recipe: Recipe, sources: Sequence[Source]) -> set[str]:
    """Returns the names of the sources of which all files are read again, changed or not.

    What decides which documents a file is has changed since they were last read: for all of them, or for
    those that could not be read since.
    """
    last = lake.last_commit(RAW_DOCUMENTS.name)
    if last is None:
        return set()
    if last.lineage.config_digest != raw_documents_digest(recipe):
        return {source.name for source in sources}
    return {source.name for source in sources if source.name in last.lineage.behind}


@dataclass(frozen=True)
class BronzeReading:
    """The changes of one source since its last reading.

    Attributes:
        source: The source.
        known: The lake's newest revisions of the documents of the files that were read.
        read: The documents of the files that were read, a Spark frame if they are many; None if no file was
            read.
        vanished: The lake's newest revisions of documents whose file is no longer listed.
        read_bytes: The total size of the files that were read.
        earlier: Revisions of what documents were between their last reading and now.
        warnings: What of the source could not be reached, though the rest was read: a sentence each.
        state_digest: The digest of a local source and its files as they were read; else empty.
    """

    source: Source
    known: pa.Table
    read: pa.Table | DataFrame | None
    vanished: pa.Table
    read_bytes: int
    earlier: pa.Table = field(default_factory=RAW_DOCUMENTS.schema.empty_table)
    warnings: Sequence[str] = ()
    state_digest: str = ""


def read_bronze_changes(
    lake: Lake,
    source: Source,
    state: pa.Table,
    max_shrink: float,
    limits: ParserLimits,
    read_all: bool = False,
) -> BronzeReading:
    """Lists a source, and reads the files that are new or changed since the lake last read them.

    Args:
        lake: The lake, whose Spark session reads a source that is large or on another file system.
        source: The source.
        state: The lake's newest revisions of the source's documents, with the columns of `STATE`.
        max_shrink: The largest share of the documents that may be gone.
        limits: The bounds on opening archives, messages and compressed files.
        read_all: Whether files that have not changed are read too; rows of files are not.

    Raises:
        SourceShrunk: A larger share is gone.
    """
    local = list_local_source(source)
    listed = list_source(lake.spark, source) if local is None else local
    stale = listed if read_all and source.kind == "files" else stale_source_files(listed, state)
    vanished = vanished_source_documents(listed, state)
    standing = state.num_rows - (pc.sum(state["deleted"]).as_py() or 0)
    check_source_shrink(source, vanished.num_rows, standing, max_shrink)
    read: pa.Table | DataFrame | None = None
    if stale.num_rows:
        read = read_local_source(source, stale, limits)
        if read is None:
            read = read_source(lake.spark, source, stale, limits)
    files = pc.list_element(pc.split_pattern(state["uri"], "#", max_splits=1), 0)
    known = state.filter(pc.is_in(files, stale["uri"]))
    return BronzeReading(
        source,
        known,
        read,
        vanished,
        pc.sum(stale["file_size_bytes"]).as_py() or 0,
        state_digest="" if local is None else source_state_digest(source, local),
    )


def read_connected_changes(
    lake: Lake,
    source: Source,
    state: pa.Table,
    max_shrink: float,
    limits: ParserLimits,
    scratch: Path,
    now: datetime,
    read_all: bool = False,
) -> BronzeReading:
    """`read_bronze_changes` for a source that a connector reads.

    Args:
        lake: The lake.
        source: The source.
        state: As of `read_bronze_changes`.
        max_shrink: The largest share of the documents that may be gone.
        limits: The bounds on opening archives and messages.
        scratch: An empty folder for what is read, which is needed until it is committed.
        now: The time of this reading.
        read_all: Whether documents that have not changed are read too.

    Raises:
        SourceShrunk: A larger share is gone.
    """
    found = read_connected_source(source, state, limits, lake.cache_dir, scratch, read_all)
    vanished = vanished_source_documents(found.listing, state)
    standing = state.num_rows - (pc.sum(state["deleted"]).as_py() or 0)
    check_source_shrink(source, vanished.num_rows, standing, max_shrink)
    files = pc.list_element(pc.split_pattern(state["uri"], "#", max_splits=1), 0)
    known = state.filter(pc.is_in(files, pa.array(found.read_uris, pa.string())))
    earlier, known = earlier_revisions(known, found.earlier, source, now)
    read, size_bytes = found.contents.read(lake), found.contents.size_bytes
    return BronzeReading(source, known, read, vanished, size_bytes, earlier, found.warnings)


@dataclass(frozen=True)
class BronzeOutcome:
    """What became of sources that were to be read.

    Attributes:
        read: The names of the sources that could be read.
        changed: Those of them in which something was new, changed or gone.
        faults: Why a source could not be read, by its name; its documents are as they were.
        partly: What of a source could not be reached, though the rest was read, by its name.
        state_digests: The digest of each source as it was read, by its name, of local ones.
    """

    read: Collection[str]
    changed: Collection[str]
    faults: Mapping[str, SourceError]
    partly: Mapping[str, str]
    state_digests: Mapping[str, str]

    @property
    def reasons(self) -> dict[str, str]:
        """Why a source could not be read, in whole or in part, by its name."""
        return {**self.partly, **{name: str(fault) for name, fault in self.faults.items()}}


def refresh_raw_documents(
    lake: Lake,
    recipe: Recipe,
    max_shrink: float,
    registered: Sequence[Source],
    run_id: str,
    only: Collection[str] | None = None,
) -> BronzeOutcome:
    """Appends the new revisions of sources to `bronze.raw_documents`, in one commit.

    Args:
        lake: The lake.
        recipe: The parser's limits, which decide which documents a file is.
        max_shrink: The largest share of a source's documents that may be gone.
        registered: All sources. The documents of one that is no longer among them go, as vanished files do.
        run_id: The Dagster run.
        only: The names of the sources that are read; all of them if None.

    Raises:
        SourceError: There is neither a source nor a document, or no source could be read.
    """
    digest = raw_documents_digest(recipe)
    step = begin_step(lake, RAW_DOCUMENTS, {}, run_id=run_id, config_digest=digest)
    state = lake.query(STATE, raw=lake.delta(RAW_DOCUMENTS.name))
    if step.rebuild and state.num_rows:
        logger.info(
            "the parser's limits or the kinds of files that are told apart have changed: every file is read "
            "again, and those that are another document now are parsed again"
        )
    if not registered and not state.num_rows and lake.last_commit(RAW_DOCUMENTS.name) is None:
        raise SourceError(
            "there is no source yet: `headwater ingest PATH` or `headwater source add NAME PATH`"
        )
    behind = sources_behind(lake, recipe, registered)
    now = lake.stamp(RAW_DOCUMENTS, "fetched_at")
    chosen = [source for source in registered if only is None or source.name in only]
    readings, left = list[BronzeReading](), state
    faults: dict[str, SourceError] = {}
    progress = Progress("sources looked through", len(chosen))
    with source_scratch_folder(lake.cache_dir) as scratch:
        for source in chosen:
            ours = pc.and_(pc.equal(left["tenant"], source.tenant), pc.equal(left["source"], source.name))
            known, left = left.filter(ours), left.filter(pc.invert(ours))
            read: Callable[..., BronzeReading] = read_bronze_changes
            if source.kind in CONNECTED_KINDS:
                folder = scratch / str(len(readings) + len(faults))
                folder.mkdir()
                read = partial(read_connected_changes, scratch=folder, now=now)
            try:
                read_all = source.name in behind
                readings.append(read(lake, source, known, max_shrink, recipe.parser, read_all=read_all))
            except SourceError as fault:  # it fails alone: its documents stay as they are
                logger.warning("%s", fault)
                faults[source.name] = fault
            progress.advance()
        with open_relations(lake, not any(isinstance(reading.read, DataFrame) for reading in readings)) as on:
            accepted, parts = list[BronzeReading](), ["SELECT * FROM {gone}", "SELECT * FROM {earlier}"]
            for number, reading in enumerate(readings):
                try:
                    if reading.read is not None:
                        on.add("read", reading.read)
                        name = f"revisions_{number}"
                        define_revisions(
                            on, name, reading.known, reading.source, now, accept_loss=max_shrink == 1
                        )
                        parts.append(f"SELECT * FROM {{{name}}}")
                    accepted.append(reading)
                except SourceError as fault:  # found as its files are read
                    logger.warning("%s", fault)
                    faults[reading.source.name] = fault
            partly = {
                reading.source.name: "; ".join(reading.warnings) for reading in accepted if reading.warnings
            }
            for warning in partly.values():
                logger.warning("%s", warning)
            if faults and not accepted:
                raise _none_read(list(faults.values()))
            # What no source claims any more was taken from the configuration: it goes as vanished files do.
            orphans = left.filter(pc.invert(left["deleted"])) if only is None else left.slice(0, 0)
            gone = pa.concat_tables([orphans, *(reading.vanished for reading in accepted)])
            # What is not read now is read again once it can: each source for itself.
            standing = set(state.filter(pc.invert(state["deleted"]))["source"].to_pylist())
            left_behind = (behind - {reading.source.name for reading in accepted}) & standing
            step = replace(
                step, lineage=step.lineage.model_copy(update={"behind": tuple(sorted(left_behind))})
            )
            always = step.rebuild or left_behind != behind
            if len(parts) > 2 or gone.num_rows or always:
                on.add("gone", tombstones(gone, now))
                nothing = RAW_DOCUMENTS.schema.empty_table()
                on.add("earlier", pa.concat_tables([nothing, *(reading.earlier for reading in accepted)]))
                read_bytes = sum(reading.read_bytes for reading in accepted)
                step.append(on, " UNION ALL ".join(parts), read_bytes, always)
    if only is None:
        remove_unclaimed_mirrors(lake.cache_dir, registered)
    changed = [each for each in accepted if each.read is not None or each.vanished.num_rows]
    return BronzeOutcome(
        [each.source.name for each in accepted],
        [each.source.name for each in changed],
        faults,
        partly,
        {each.source.name: each.state_digest for each in accepted if each.state_digest},
    )


def bronze_sources_check(outcome: BronzeOutcome) -> dg.AssetCheckResult:
    """Returns a check result that names the sources that could not be read, in whole or in part, and why."""
    return dg.AssetCheckResult(
        passed=not outcome.reasons,
        check_name=SOURCES_READ,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(outcome.reasons.values()) or None,
        metadata=outcome.reasons,
    )


def _none_read(faults: Sequence[SourceError]) -> SourceError:
    return faults[0] if len(faults) == 1 else SourceError("\n".join(map(str, faults)))


@dg.asset(
    # Sensor and schedule say when sources are read.
    **dagster_asset_options(RAW_DOCUMENTS) | {"automation_condition": None},
    pool="spark",
    check_specs=[
        dg.AssetCheckSpec(
            SOURCES_READ,
            asset=asset_key(RAW_DOCUMENTS.name),
            description="Every source could be read. One that could not keeps its documents as they were.",
        )
    ],
)
def raw_documents_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    sources: dg.ResourceParam[SourceRegistry],
    max_shrink: dg.ResourceParam[float],
    recipe: dg.ResourceParam[Recipe],
) -> dg.MaterializeResult:
    """The bytes of every document of every source, one row per revision."""
    registered = sources.list()
    outcome = refresh_raw_documents(lake, recipe, max_shrink, registered, context.run_id)
    record_sources(context, registered, outcome.read, outcome.changed, outcome.reasons)
    made = dagster_result(
        lake,
        RAW_DOCUMENTS,
        sources=len(registered),
        sources_not_read=sorted(outcome.faults),
        local_sources_as_read=sources_state_digest(outcome.state_digests),
    )
    return made._replace(check_results=[bronze_sources_check(outcome)])


@dg.asset(
    key=SOURCE_DOCUMENTS,
    group_name="bronze",
    kinds={"spark", "deltalake"},
    tags={"headwater/holds_texts": "yes"},
    code_version=CODE_VERSION,
    partitions_def=SOURCES,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool="spark",
)
def source_documents_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    sources: dg.ResourceParam[SourceRegistry],
    max_shrink: dg.ResourceParam[float],
    recipe: dg.ResourceParam[Recipe],
) -> dg.MaterializeResult:
    """Single sources, a partition each: one is read alone into `bronze/raw_documents`; the rest follows."""
    chosen = [sources.get(name) for name in context.partition_keys]
    outcome = refresh_raw_documents(
        lake, recipe, max_shrink, sources.list(), context.run_id, [source.name for source in chosen]
    )
    # What depends on the table follows, as after a run of all sources.
    made = dagster_result(lake, RAW_DOCUMENTS)
    context.log_event(materialization_of(made))
    if outcome.faults:
        record_sources(context, chosen, outcome.read, outcome.read, outcome.reasons)
        raise SourceError("\n".join(map(str, outcome.faults.values())))
    return dg.MaterializeResult(metadata={"warnings": "; ".join(outcome.partly.values()) or "none"})
