"""Reads tabular files (JSONL, CSV, TSV, Parquet) by Spark, one document per row.

The uri of a row is its file's, `#`, and its percent-encoded id: the id column, else `_id` or `id`, else a
hash of the text. It is never the row's position, because an inserted row would change the position of all
later ones. `~2`, `~3` … are added to the ids of rows that share one, in the order of the hashes of their
texts.

Files of lines may be compressed by gzip, bzip2 or Zstandard (`.jsonl.gz`), as Spark reads them; Parquet
compresses its own columns.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_type

from assets.lake.delta import delta_hadoop_path
from assets.parsing.content_type import UTF8_TEXT
from assets.sources.file_contents import compressed_file_error
from assets.sources.local_files import leads_outside_source
from assets.sources.source_config import (
    COMPRESSED_ROWS_BY_SUFFIX,
    DELIMITERS_BY_SUFFIX,
    JSON_LINES_SUFFIXES,
    Source,
    UnreadableTabularFile,
)
from assets.sources.source_schemas import (
    SOURCE_CONTENT_SCHEMA,
    SOURCE_LISTING_SCHEMA,
    ListedFile,
    SourceContent,
    source_content_batch,
    source_uri_to_path,
)

_SAMPLE_ROWS = 1000
_CORRUPT = "_malformed"
_FILE = "_file"
# Hadoop's default local file system, with checksums, can not open a name with a colon.
_READING = {
    "fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    "fs.file.impl.disable.cache": "true",
    "ignoreMissingFiles": "true",
    "ignoreCorruptFiles": "true",
}


def read_tabular_files(spark: SparkSession, source: Source, files: pa.Table) -> DataFrame:
    """Reads every row of tabular files as a document.

    No row or file is lost: empty and missing texts become empty bodies. A line that is no row of its file,
    and a file that has no rows or can not be read, become rows with an error.

    Args:
        spark: The session.
        source: The source, which names the columns.
        files: The rows of its listing to read.

    Returns:
        A frame with the schema `SOURCE_CONTENT_SCHEMA`; the body is the text in UTF-8.

    Raises:
        UnreadableTabularFile: A file lacks a column that the source names, or its format has no rows.
    """
    paths: dict[str, list[str]] = defaultdict(list)
    damaged: list[SourceContent] = []
    for file in (ListedFile(**row) for row in files.to_pylist()):
        uri = file.uri
        name = PurePosixPath(uri)
        coding = COMPRESSED_ROWS_BY_SUFFIX.get(name.suffix.lower())
        suffix = (PurePosixPath(name.stem) if coding else name).suffix.lower()
        kind = "json" if suffix in JSON_LINES_SUFFIXES else suffix
        if kind not in ("json", *DELIMITERS_BY_SUFFIX) and (kind != ".parquet" or coding):
            raise UnreadableTabularFile(
                f"source {source.name}: {uri} has no rows that can be read: leave it out with a glob such as "
                "**/*.{jsonl,ndjson,csv,tsv,parquet}, or drop the text column to read files whole. Files of "
                "lines may be compressed as .gz, .bz2 or .zst"
            )
        # A file that vanished since it was listed would make Spark fail on the others too, and Spark follows
        # links wherever they lead.
        path = source_uri_to_path(uri) if source.local_root else ""
        if path and (not Path(path).is_file() or leads_outside_source(path, source.location)):
            continue
        if path and coding and (error := compressed_file_error(Path(path), coding)):
            damaged.append(SourceContent.failed(file, error))
        else:
            paths[kind].append(unquote(uri))
    frames = [_none(spark)]
    for kind, of_kind in paths.items():
        if kind == "json":
            frames.append(_json(spark, source, of_kind))
        elif kind == ".parquet":
            frames.append(_parquet(spark, source, of_kind))
        else:
            frames += [_separated(spark, source, group, kind) for group in _by_header(spark, of_kind)]
    rows = reduce(DataFrame.unionByName, frames)
    sound = files.filter(
        pc.invert(pc.is_in(files["uri"], pa.array([each.uri for each in damaged], pa.string())))
    )
    listed = _with_paths(spark, sound)
    found = _documents(rows, listed).unionByName(_without_rows(rows, listed))
    if not damaged:
        return found
    return found.unionByName(
        spark.createDataFrame(pa.Table.from_batches([source_content_batch(damaged)], SOURCE_CONTENT_SCHEMA))
    )


def _reading(paths: Sequence[str]) -> dict[str, str]:
    """Returns Spark's options for reading files.

    Those of this machine were checked. A compressed file elsewhere that is damaged fails its source: Spark
    would leave out the rows after the damage, and say nothing.
    """
    unchecked = any(
        "://" in path.removeprefix("file://")
        and PurePosixPath(path).suffix.lower() in COMPRESSED_ROWS_BY_SUFFIX
        for path in paths
    )
    return _READING | ({"ignoreCorruptFiles": "false"} if unchecked else {})


def _with_paths(spark: SparkSession, files: pa.Table) -> DataFrame:
    """Returns the listing with each file's path as Spark reports it for a row, without percent-encoding."""
    return spark.createDataFrame(files).withColumn(
        _FILE, _decoded(F.regexp_replace("uri", "^file://", "file:"))
    )


def _decoded(encoded: Column) -> Column:
    # url_decode is for forms, where a plus means a space.
    return F.url_decode(F.replace(encoded, F.lit("+"), F.lit("%2B")))


def _from_file() -> Column:
    return _decoded(F.regexp_replace("_metadata.file_path", "^file:///", "file:/")).alias(_FILE)


def _documents(rows: DataFrame, files: DataFrame) -> DataFrame:
    """Returns rows of (file, id, title, text, malformed) with the columns of `SOURCE_CONTENT_SCHEMA`."""
    body = F.coalesce(F.col("text"), F.lit("")).cast("binary")
    rows = rows.withColumn("body", F.when(F.col("malformed").isNull(), body))
    rows = rows.withColumn("content_sha256", F.sha2("body", 256))
    digest = F.substring(F.coalesce("content_sha256", F.sha2(F.col("malformed").cast("binary"), 256)), 1, 16)
    rows = rows.withColumn("id", F.coalesce("id", digest))
    same = Window.partitionBy(_FILE, "id").orderBy("content_sha256", "title", "malformed")
    nth = F.row_number().over(same)
    # An encoded id has no "~", so that the suffix can not be mistaken for a part of the id.
    encoded = F.replace(F.url_encode("id"), F.lit("+"), F.lit("%20"))
    row_uri = F.concat("uri", F.lit("#"), encoded, F.when(nth > 1, F.concat(F.lit("~"), nth)).otherwise(""))
    columns = {
        "uri": row_uri,
        "media_type": F.when(F.col("malformed").isNull(), F.lit(UTF8_TEXT)),
        "size_bytes": F.octet_length("body").cast("bigint"),
        "error": F.concat(F.lit("unreadable: not a row of this file: "), F.substring("malformed", 1, 200)),
    }
    return rows.join(F.broadcast(files), _FILE).withColumns(columns).select(*SOURCE_CONTENT_SCHEMA.names)


def _without_rows(rows: DataFrame, files: DataFrame) -> DataFrame:
    """Returns the files without rows, with the columns of `SOURCE_CONTENT_SCHEMA` and an error."""
    error = F.lit(
        "unreadable: it went away, holds no rows, is not what its name says, or is a link that leads out of "
        "the source's folder"
    )
    rest = {
        f.name: F.lit(None).cast(from_arrow_type(f.type))
        for f in SOURCE_CONTENT_SCHEMA
        if f.name not in SOURCE_LISTING_SCHEMA.names
    }
    silent = files.join(F.broadcast(rows.select(_FILE).distinct()), _FILE, "left_anti")
    return silent.withColumns(rest | {"error": error}).select(*SOURCE_CONTENT_SCHEMA.names)


def _none(spark: SparkSession) -> DataFrame:
    columns = (_FILE, "id", "title", "text", "malformed")
    return spark.createDataFrame(
        [], T.StructType([T.StructField(column, T.StringType()) for column in columns])
    )


def _json(spark: SparkSession, source: Source, paths: list[str]) -> DataFrame:
    lines = spark.read.options(**_reading(paths)).text([delta_hadoop_path(path) for path in paths])
    lines = lines.select(_from_file(), F.regexp_replace("value", "^\ufeff", "").alias("line"))
    lines = lines.where(F.trim("line") != "")
    # The columns are those of a sample: Spark's inference would read every file twice.
    keys = F.explode(F.expr("json_object_keys(line)")).alias("key")
    sample = lines.limit(_SAMPLE_ROWS).select(keys).distinct().collect()
    if not sample:
        return lines.select(
            _FILE,
            *[F.lit(None).cast("string").alias(c) for c in ("id", "title", "text")],
            F.col("line").alias("malformed"),
        )
    title, name = _chosen(source, sorted(row.key for row in sample), paths)
    wanted = dict.fromkeys(column for column in (source.text_column, title, name) if column)
    schema = T.StructType([T.StructField(column, T.StringType()) for column in (*wanted, _CORRUPT)])
    parsed = F.from_json("line", schema, {"columnNameOfCorruptRecord": _CORRUPT})
    return _selected(lines.select(_FILE, parsed.alias("row")), source, title, name, "row.")


def _parquet(spark: SparkSession, source: Source, paths: list[str]) -> DataFrame:
    reader = spark.read.options(**_READING).option("mergeSchema", True)
    try:
        rows = reader.parquet(*[delta_hadoop_path(path) for path in paths])
    except AnalysisException as error:
        if error.getCondition() != "UNABLE_TO_INFER_SCHEMA":
            raise
        return _none(spark)  # none of them is Parquet
    title, name = _chosen(source, rows.columns, paths)
    return _selected(
        rows.select("*", _from_file(), F.lit(None).cast("string").alias(_CORRUPT)), source, title, name
    )


def _separated(spark: SparkSession, source: Source, paths: list[str], suffix: str) -> DataFrame:
    """Reads CSV or TSV files with one header; short rows lack their last columns, long ones are malformed.

    Most long rows have a text with an unquoted comma, of which only a part would be taken for the text.
    """
    reader = (
        spark.read.options(**_reading(paths))
        .option("header", True)
        .option("sep", DELIMITERS_BY_SUFFIX[suffix])
    )
    # Quotes are escaped as in RFC 4180; Spark's default is a backslash.
    reader = reader.option("escape", '"').option("multiLine", True).option("columnPruning", False)
    found = [delta_hadoop_path(path) for path in paths]
    columns = reader.csv(found[0]).columns
    if not columns:
        return _none(spark)
    title, name = _chosen(source, columns, paths)
    schema = T.StructType([T.StructField(column, T.StringType()) for column in (*columns, _CORRUPT)])
    rows = reader.schema(schema).option("columnNameOfCorruptRecord", _CORRUPT).csv(found)
    short = F.col(f"`{columns[-1]}`").isNull()
    malformed = F.when(~short, F.col(_CORRUPT))
    return _selected(rows.select("*", _from_file()).withColumn(_CORRUPT, malformed), source, title, name)


def _by_header(spark: SparkSession, paths: list[str]) -> list[list[str]]:
    """Groups files by their first line, because Spark would read all of them with the columns of one."""
    if len(paths) == 1:
        return [paths]
    lines = spark.read.options(**_reading(paths)).text([delta_hadoop_path(path) for path in paths])
    starts = lines.select(_from_file(), "value").where("_metadata.file_block_start = 0")
    headers = starts.groupBy(_FILE).agg(F.first("value").alias("header")).collect()
    of_header: dict[str, list[str]] = defaultdict(list)
    for row in sorted(headers):
        of_header[row.header].append(row[_FILE])
    return list(of_header.values())


def _chosen(source: Source, columns: Sequence[str], paths: list[str]) -> tuple[str | None, str | None]:
    """Returns the title and id columns, after a check that the file has all columns that the source names."""
    for column in (source.text_column, source.id_column, source.title_column):
        if column and column not in columns:
            others = f" and {len(paths) - 1} like it" if len(paths) > 1 else ""
            raise UnreadableTabularFile(
                f"source {source.name}: there is no column {column!r} in {paths[0]}{others}; "
                f"its columns are: {', '.join(columns) or 'none'}"
            )
    title = source.title_column or ("title" if "title" in columns else None)
    return title, source.id_column or next((c for c in ("_id", "id") if c in columns), None)


def _selected(
    rows: DataFrame, source: Source, title: str | None, name: str | None, within: str = ""
) -> DataFrame:
    def text_of(column: str | None) -> Column:
        return F.col(f"{within}`{column}`").cast("string") if column else F.lit(None).cast("string")

    return rows.select(
        _FILE,
        text_of(name).alias("id"),
        text_of(title).alias("title"),
        text_of(source.text_column).alias("text"),
        text_of(_CORRUPT).alias("malformed"),
    )
