"""Bronze: the unchanged bytes of every document of every source.

Rows of `bronze/raw_documents` are never changed: a changed document gets a new revision, a deleted one a
tombstone. So an old answer can be traced back to the bytes that it was made from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from assets.dagster.metadata import asset_key, dagster_asset_options, dagster_result
from assets.engine.step import begin_step, open_relations
from assets.lake.ids import config_digest
from assets.lake.lake import Lake
from assets.lake.tables import RAW_DOCUMENTS
from assets.parsing.content_type import KINDS_VERSION
from assets.parsing.sandbox import ParserLimits
from assets.recipe import Recipe
from assets.sources.revisions import (
    STATE,
    check_source_shrink,
    define_revisions,
    stale_source_files,
    tombstones,
    vanished_source_documents,
)
from assets.sources.source_config import Source, SourceError
from assets.sources.source_reader import list_local_source, list_source, read_local_source, read_source
from assets.sources.source_registry import SourceRegistry

SOURCES_READ = "sources_read"
"""The check of `bronze/raw_documents` that fails, as a warning, while a source can not be read."""


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
    """

    source: Source
    known: pa.Table
    read: pa.Table | DataFrame | None
    vanished: pa.Table
    read_bytes: int


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
    listed = list_local_source(source)
    if listed is None:
        listed = list_source(lake.spark, source)
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
    return BronzeReading(source, known, read, vanished, pc.sum(stale["file_size_bytes"]).as_py() or 0)


def bronze_sources_check(
    registered: Sequence[Source], faults: Mapping[str, SourceError]
) -> dg.AssetCheckResult:
    """Returns a check result that names the sources that could not be read, with the reasons.

    Raises:
        SourceError: No source could be read.
    """
    if faults and len(faults) == len(registered):
        if len(faults) == 1:
            raise next(iter(faults.values()))
        raise SourceError("\n".join(str(fault) for fault in faults.values()))
    return dg.AssetCheckResult(
        passed=not faults,
        check_name=SOURCES_READ,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(str(fault) for fault in faults.values()) or None,
        metadata={name: str(fault) for name, fault in faults.items()},
    )


@dg.asset(
    **dagster_asset_options(RAW_DOCUMENTS),
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
    digest = config_digest(KINDS_VERSION, recipe.parser)
    step = begin_step(lake, RAW_DOCUMENTS, {}, run_id=context.run_id, config_digest=digest)
    state = lake.query(STATE, raw=lake.delta(RAW_DOCUMENTS.name))
    if step.rebuild and state.num_rows:
        context.log.info(
            "the parser's limits or the kinds of files that are told apart have changed: every file is read "
            "again, and those that are another document now are parsed again"
        )
    registered = sources.list()
    if not state.num_rows and not registered:
        raise SourceError(
            "there is no source yet: `headwater ingest PATH` or `headwater source add NAME PATH`"
        )
    now = lake.stamp(RAW_DOCUMENTS, "fetched_at")
    readings, left = list[BronzeReading](), state
    faults: dict[str, SourceError] = {}
    for source in registered:
        ours = pc.and_(pc.equal(left["tenant"], source.tenant), pc.equal(left["source"], source.name))
        known, left = left.filter(ours), left.filter(pc.invert(ours))
        try:
            readings.append(
                read_bronze_changes(lake, source, known, max_shrink, recipe.parser, read_all=step.rebuild)
            )
        except SourceError as fault:  # it fails alone: its documents stay as they are
            context.log.warning(str(fault))
            faults[source.name] = fault
    with open_relations(lake, not any(isinstance(reading.read, DataFrame) for reading in readings)) as on:
        accepted, parts = list[BronzeReading](), ["SELECT * FROM {gone}"]
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
                context.log.warning(str(fault))
                faults[reading.source.name] = fault
        checked = bronze_sources_check(registered, faults)
        # What no source claims any more was taken from the configuration: it goes as vanished files do.
        orphans = left.filter(pc.invert(left["deleted"]))
        gone = pa.concat_tables([orphans, *(reading.vanished for reading in accepted)])
        if step.rebuild and faults:  # what could not be read now is read again by the next run
            step = replace(step, lineage=step.lineage.model_copy(update={"config_digest": ""}))
        if len(parts) > 1 or gone.num_rows or step.rebuild:
            on.add("gone", tombstones(gone, now))
            step.append(on, " UNION ALL ".join(parts), sum(reading.read_bytes for reading in accepted))
    made = dagster_result(lake, RAW_DOCUMENTS, sources=len(registered), sources_not_read=sorted(faults))
    return made._replace(check_results=[checked])
