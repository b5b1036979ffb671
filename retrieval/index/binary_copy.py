"""Arrow record batches as PostgreSQL's binary COPY stream, without a Python object per row or number.

The format: https://www.postgresql.org/docs/current/sql-copy.html (Binary Format); `halfvec` on the wire:
its `halfvec_recv` in pgvector's src/halfvec.c.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"

_BATCH_ROWS = 4096  # bounds memory: a batch is held once as Arrow and once as the stream


class InvalidIndexBatch(ValueError):
    """A record batch can not be indexed; the message names the column, and the row if one row is at fault."""


def binary_copy_stream(batches: Iterator[pa.RecordBatch]) -> Iterator[memoryview | bytes]:
    """Yields record batches as one binary COPY stream.

    Args:
        batches: Batches of one schema, with columns of integers, booleans, strings and (fixed-size) lists of
            float32. The lists become `halfvec`.

    Yields:
        Pieces of the stream: header, rows, trailer.

    Raises:
        InvalidIndexBatch: A column has another type, or a vector does not fit into a `halfvec`.
    """
    yield COPY_HEADER
    for batch in batches:
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            yield memoryview(encode_copy_rows(batch.slice(start, _BATCH_ROWS)))
    yield COPY_TRAILER


def encode_copy_rows(batch: pa.RecordBatch) -> pa.Buffer:
    """Returns a batch's rows in binary COPY format: the field count, then the length and bytes of each field.

    Every column becomes one or two binary columns. Arrow joins these row by row, so that the data buffer of
    the joined column is the stream.
    """
    count = batch.num_rows
    parts = [_fixed_width(np.full(count, batch.num_columns, ">i2"))]
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        kind = column.type
        if pa.types.is_integer(kind):
            parts += _integers(column, ">i8" if kind.bit_width == 64 else ">i4")
        elif pa.types.is_boolean(kind):
            parts += _integers(column.cast(pa.int8()), ">i1")
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            parts += _strings(column)
        elif pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
            parts.append(_halfvecs(column, name))
        else:
            raise InvalidIndexBatch(
                f"column {name!r} is {kind}, which is not an integer, a boolean, a string or a vector"
            )
    rows = pc.binary_join_element_wise(*parts, b"")
    offsets = np.frombuffer(rows.buffers()[1], np.int32, count + 1, rows.offset * 4)
    return rows.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def copied_vectors(column: pa.Array, name: str = "vector") -> npt.NDArray[np.float32]:
    """Returns a column of vectors as one array, (rows, dimension) float32, without a copy where possible.

    Raises:
        InvalidIndexBatch: A vector is missing, or the vectors differ in length.
    """
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InvalidIndexBatch(f"column {name!r} has no vector in row {row} of its batch")
    values = column.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
    if len(column) == 0:
        return values.reshape(0, 0)
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if lengths.min() != lengths.max():
        raise InvalidIndexBatch(
            f"column {name!r} has vectors of {lengths.min()} and of {lengths.max()} numbers"
        )
    return values.reshape(len(column), int(lengths[0]))


def _fixed_width(values: npt.NDArray[np.generic]) -> pa.Array:
    """Returns each element of a (structured) array as one binary value."""
    width = values.dtype.itemsize
    offsets = np.arange(len(values) + 1, dtype=np.int32) * np.int32(width)
    data = np.ascontiguousarray(values).view(np.uint8)
    return pa.Array.from_buffers(pa.binary(), len(values), [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _integers(column: pa.Array, kind: str) -> list[pa.Array]:
    field = np.empty(len(column), [("length", ">i4"), ("value", kind)])
    if not column.null_count:
        field["length"] = np.dtype(kind).itemsize
        field["value"] = column.to_numpy()
        return [_fixed_width(field)]
    # A null is a length of -1 and no bytes.
    values = _fixed_width(pc.fill_null(column, 0).to_numpy().astype(kind))
    lengths = np.where(column.is_null().to_numpy(zero_copy_only=False), -1, np.dtype(kind).itemsize)
    return [_fixed_width(lengths.astype(">i4")), pc.if_else(column.is_null(), b"", values)]


def _strings(column: pa.Array) -> list[pa.Array]:
    lengths = pc.fill_null(pc.binary_length(column), -1).to_numpy(zero_copy_only=False)
    data = column.cast(pa.binary())
    return [_fixed_width(lengths.astype(">i4")), pc.fill_null(data, b"") if column.null_count else data]


def _halfvecs(column: pa.Array, name: str) -> pa.Array:
    values = copied_vectors(column, name)
    dimension = values.shape[1]
    field = np.zeros(
        len(values),
        [("length", ">i4"), ("dimension", ">i2"), ("unused", ">i2"), ("values", ">f2", (dimension,))],
    )
    field["length"] = 4 + 2 * dimension
    field["dimension"] = dimension
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        row = int(np.flatnonzero(~np.isfinite(halves).all(axis=1))[0])
        raise InvalidIndexBatch(
            f"column {name!r}, row {row} of its batch: not every number fits a half float"
        )
    if not halves.any(axis=1).all():
        row = int(np.flatnonzero(~halves.any(axis=1))[0])
        raise InvalidIndexBatch(
            f"column {name!r}, row {row} of its batch: the vector is zero, so no angle to it exists"
        )
    field["values"] = halves
    return _fixed_width(field)
