"""Divides a document into chunks: exact spans that follow its structure, within a budget of tokens."""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field, model_validator
from tokenizers import Tokenizer

from retrieval.chunking.headings import ChunkHeadingPath, usable_chunk_headings
from retrieval.chunking.sentences import TextBoundary, is_term, split_at_boundaries

CHUNKER_VERSION = "7"
"""Raised when the same text and configuration would give other chunks."""

_COLONS = ":："
CHARACTERS_PER_TOKEN = 8
"""Text with fewer tokens than one per so many characters counts as if it had them: a tokenizer turns a word
of a megabyte, or a clause in Thai, into one unknown token, and a chunk must still be of a size that a person
can read. English has about 4.5."""

_BADNESS = {
    TextBoundary.SECTION: 0.0,
    TextBoundary.PARAGRAPH: 0.0,
    TextBoundary.SENTENCE: 0.0,
    TextBoundary.LINE: 0.25,
    TextBoundary.WORD: 0.5,
}
"""The penalty of dividing a long paragraph at such a boundary, in the unit of `_divided`: the distance of the
place from an even division, as a share of the budget."""

CHUNK_COLUMNS = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("char_start", pa.int32(), nullable=False),
        pa.field("char_end", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_sha256", pa.string(), nullable=False),
        pa.field("token_count", pa.int32(), nullable=False),
        pa.field("heading", pa.string()),
    ]
)
"""The columns that `chunk_document_batches` yields: `gold.chunks` without the run id."""


class ChunkerConfig(BaseModel):
    """The settings that decide how documents are divided into chunks."""

    max_tokens: int = Field(default=240, ge=8)
    """The most tokens per chunk, without the tokenizer's special ones; the model reads 254.

    Smaller chunks find more in the same number of characters and cost more rows: chunks that fill 5,000
    characters hold 80% of the relevant ones at 240 tokens and 81% at 160 (`python -m benchmarks chunking`,
    docs/context.md)."""
    min_tokens: int = Field(default=64, ge=1)
    """A chunk ends before a new heading or paragraph only when it has at least this many tokens."""

    @model_validator(mode="after")
    def _ordered(self) -> "ChunkerConfig":
        if self.min_tokens * 2 > self.max_tokens:
            raise ValueError(
                f"min_tokens ({self.min_tokens}) must be at most half of max_tokens ({self.max_tokens})"
            )
        return self

    @property
    def digest(self) -> str:
        """The hex SHA-256 of the settings and the chunker's version."""
        return hashlib.sha256(f"{CHUNKER_VERSION}{self.model_dump_json()}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document: `text[char_start:char_end]`, in code points.

    Attributes:
        char_start: The position of its first character, which is never whitespace.
        char_end: The position after its last character.
        heading: The path of headings above the chunk, as `A > B > C`; None before the first heading.
        token_count: The number of tokens by the embedder's tokenizer, without special tokens.
    """

    char_start: int
    char_end: int
    heading: str | None
    token_count: int


@dataclass(slots=True)
class _Unit:
    """What chunks are made of: a heading line, a sentence, a line, or a part of one that is too long.

    A heading, a term that the lines after it explain, and what ends in a colon leads: no chunk ends after it.
    """

    start: int
    end: int
    boundary: TextBoundary
    leads: bool
    tokens: int = 0

    @property
    def cost(self) -> int:
        return max(self.tokens, (self.end - self.start) // CHARACTERS_PER_TOKEN)


@lru_cache(maxsize=4)
def load_chunk_tokenizer(path: Path) -> Tokenizer:
    """Returns the tokenizer of a `tokenizer.json` for counting tokens: without truncation or padding.

    Raises:
        FileNotFoundError: When there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}: name the folder of a model with a tokenizer.json")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def split_into_chunks(
    text: str,
    headings: Sequence[Mapping[str, Any]] | None,
    tokenizer: Tokenizer,
    config: ChunkerConfig,
) -> list[Chunk]:
    """Returns the chunks of a text, in time linear in its length.

    Structure decides first: once the current chunk has `min_tokens`, a heading begins a new chunk, and so
    does a paragraph that does not fit into the current one. A paragraph that is too long for one chunk is
    divided evenly into as few chunks as possible, between sentences rather than lines, and lines rather than
    words: nearly full chunks followed by a small rest give worse retrieval (docs/context.md). A long
    paragraph shares a chunk only with preceding text of fewer than `min_tokens`. A small rest at the end of
    the document joins the chunk before it if both fit.

    Args:
        text: The normalised text of the document.
        headings: The document's headings, each with `char_start`, `level` and `title`. A heading inside a
            word is ignored.
        tokenizer: The embedder's tokenizer, from `load_chunk_tokenizer`.
        config: The token budget.

    Returns:
        Chunks in order. They do not overlap, and together they hold every character that is not whitespace.
    """
    outline = usable_chunk_headings(text, headings or [])
    units = _units(text, outline, tokenizer, config)
    chunks: list[Chunk] = []
    path = ChunkHeadingPath(outline)
    for first, last in _pack(units, config):
        start = units[first].start
        tokens = sum(unit.tokens for unit in units[first:last])
        chunks.append(Chunk(start, units[last - 1].end, path.at(start), tokens))
    return chunks


def _units(
    text: str, outline: list[tuple[int, int, str]], tokenizer: Tokenizer, config: ChunkerConfig
) -> list[_Unit]:
    # Half the budget, so that a heading and the piece after it always fit together.
    limit = config.max_tokens // 2
    units = [
        part
        for start, end, boundary, leads in _sectioned(text, outline)
        for part in _by_length(text, _Unit(start, end, boundary, leads), limit * CHARACTERS_PER_TOKEN)
    ]
    _count(text, units, tokenizer)
    if any(unit.tokens > limit for unit in units):
        units = [
            part
            for unit in units
            for part in ([unit] if unit.tokens <= limit else _by_tokens(text, unit, limit, tokenizer))
        ]
    return units


def _count(text: str, units: list[_Unit], tokenizer: Tokenizer) -> None:
    # One call per document: the tokens stay in the tokenizer's memory, and only their numbers come back.
    encodings = tokenizer.encode_batch_fast([text[u.start : u.end] for u in units], add_special_tokens=False)
    for unit, encoding in zip(units, encodings, strict=True):
        unit.tokens = len(encoding)


def _sectioned(
    text: str, outline: list[tuple[int, int, str]]
) -> Iterator[tuple[int, int, TextBoundary, bool]]:
    """Yields the pieces of a text; every heading line is a piece of its own that opens a section."""
    position = 0
    for start, _, title in outline:
        if start < position:  # inside the line of the heading before it
            continue
        yield from _shifted(text, position, start)
        line_end = text.find("\n", start + len(title))
        position = len(text) if line_end < 0 else line_end
        line = text[start:position]
        yield start, start + len(line.rstrip()), TextBoundary.SECTION, True
    yield from _shifted(text, position, len(text))


def _shifted(text: str, start: int, end: int) -> Iterator[tuple[int, int, TextBoundary, bool]]:
    for piece_start, piece_end, boundary in split_at_boundaries(text[start:end]):
        piece = (start + piece_start, start + piece_end)
        yield *piece, boundary, text[piece[1] - 1] in _COLONS or is_term(text, *piece)


def _by_length(text: str, unit: _Unit, limit: int) -> Iterator[_Unit]:
    """Divides a unit into parts of at most `limit` characters, at spaces where there are any."""
    start, boundary = unit.start, unit.boundary
    while unit.end - start > limit:
        space = text.rfind(" ", start, start + limit)
        cut = space if space > start else start + limit
        part_end = start + len(text[start:cut].rstrip())
        yield _Unit(start, part_end, boundary, unit.leads)
        start = cut
        while text[start].isspace():  # ends: a unit's last character is not whitespace
            start += 1
        boundary = TextBoundary.WORD if start > part_end else TextBoundary.INSIDE
    yield _Unit(start, unit.end, boundary, unit.leads)


def _by_tokens(text: str, unit: _Unit, limit: int, tokenizer: Tokenizer) -> list[_Unit]:
    """Divides a unit into parts of at most `limit` tokens: between words, else between tokens."""
    body = text[unit.start : unit.end]
    encoding = tokenizer.encode(body, add_special_tokens=False)
    offsets = np.array(encoding.offsets, dtype=np.int64)[:, 0]
    parts: list[_Unit] = []
    expected: list[int] = []
    first, boundary = 0, unit.boundary
    while first < len(offsets):
        last = min(first + limit, len(offsets))
        if last < len(offsets):
            last = next(
                (i for i in range(last, first + limit // 2, -1) if body[offsets[i] - 1].isspace()), last
            )
            # Several tokens may stand for one character, and a character is not divided.
            while last > first + 1 and offsets[last] == offsets[last - 1]:
                last -= 1
            while last < len(offsets) and offsets[last] <= offsets[first]:
                last += 1
        # A tokenizer may leave out characters, so a part ends where the next begins, not at its last token.
        begin = int(offsets[first]) if first else 0
        end = int(offsets[last]) if last < len(offsets) else len(body)
        part = body[begin:end].strip()
        if part:
            begin += len(body[begin:end]) - len(body[begin:end].lstrip())
            parts.append(_Unit(unit.start + begin, unit.start + begin + len(part), boundary, unit.leads))
            expected.append(last - first)
        boundary, first = TextBoundary.WORD, last
    _count(text, parts, tokenizer)
    for before, (part_unit, tokens) in enumerate(zip(parts[1:], expected[1:], strict=True)):
        if part_unit.tokens != tokens or parts[before].tokens != expected[before]:
            part_unit.boundary = TextBoundary.INSIDE
    return parts


def _pack(units: list[_Unit], config: ChunkerConfig) -> list[tuple[int, int]]:
    """Returns the chunks as runs of units, each `(first, one past last)`."""
    costs = [0, *accumulate(unit.cost for unit in units)]
    groups: list[tuple[int, int]] = []
    first = 0
    for start, end in _paragraphs(units):
        # The two parts of a word have another number of tokens together: the budget could not be kept.
        must_open = units[start].boundary == TextBoundary.INSIDE
        opens = units[start].boundary == TextBoundary.SECTION or costs[end] - costs[first] > config.max_tokens
        if first < start and (must_open or (opens and costs[start] - costs[first] >= config.min_tokens)):
            groups.append((first, start))
            first = start
        if costs[end] - costs[first] > config.max_tokens:
            groups += _divided(units, costs, first, end, config.max_tokens)
            first = end
    if first < len(units):
        groups.append((first, len(units)))
    if len(groups) > 1 and units[groups[-1][0]].boundary != TextBoundary.INSIDE:
        (before, rest), (_, end) = groups[-2:]
        small = costs[end] - costs[rest] < config.min_tokens
        if small and costs[end] - costs[before] <= config.max_tokens:
            groups[-2:] = [(before, end)]
    return groups


def _paragraphs(units: list[_Unit]) -> Iterator[tuple[int, int]]:
    """Yields paragraphs as runs of units, `(first, one past last)`; headings belong to what follows them."""
    first = 0
    for i in range(1, len(units)):
        boundary = units[i].boundary
        after_lead = units[i - 1].leads
        if boundary == TextBoundary.INSIDE or (boundary >= TextBoundary.PARAGRAPH and not after_lead):
            yield first, i
            first = i
    if units:
        yield first, len(units)


def _divided(
    units: list[_Unit], costs: list[int], first: int, end: int, max_tokens: int
) -> Iterator[tuple[int, int]]:
    """Divides a run that is too long for one chunk into as few chunks as hold it, as evenly as possible."""
    while (rest := costs[end] - costs[first]) > max_tokens and end - first > 1:
        even = costs[first] + rest / math.ceil(rest / max_tokens)

        def badness(cut: int, even: float = even) -> float:
            after_lead = units[cut - 1].leads
            return abs(costs[cut] - even) / max_tokens + _BADNESS[units[cut].boundary] + after_lead

        # A unit above the budget, one character of many tokens, is a chunk of its own.
        beyond = max(first + 2, bisect_right(costs, costs[first] + max_tokens, first, end))
        cut = min(range(first + 1, beyond), key=badness)
        yield first, cut
        first = cut
    yield first, end


def make_chunk_id(doc_id: str, text_sha256: str, char_start: int) -> str:
    """Returns a chunk's id: hex SHA-256 over the document's id, the chunk's text and its start position.

    So an edit of the document does not change the ids of the chunks before it.
    """
    return hashlib.sha256(f"{doc_id}\x1f{text_sha256}\x1f{char_start}".encode()).hexdigest()


def chunk_document_batches(
    batches: Iterator[pa.RecordBatch], config: ChunkerConfig, tokenizer_path: Path
) -> Iterator[pa.RecordBatch]:
    """Yields the chunks of documents, as a function for Spark's `mapInArrow`.

    Args:
        batches: Batches with the columns `doc_id`, `tenant`, `text` (strings) and `headings` (list of
            structs).
        config: The token budget.
        tokenizer_path: The path of the embedder's `tokenizer.json`.

    Yields:
        Batches with `CHUNK_COLUMNS`, one per input batch.
    """
    tokenizer = load_chunk_tokenizer(tokenizer_path)
    for batch in batches:
        columns: dict[str, list[Any]] = {name: [] for name in CHUNK_COLUMNS.names}
        for doc_id, tenant, text, headings in zip(
            *(batch.column(name).to_pylist() for name in ("doc_id", "tenant", "text", "headings")),
            strict=True,
        ):
            for ordinal, piece in enumerate(split_into_chunks(text, headings, tokenizer, config)):
                body = text[piece.char_start : piece.char_end]
                text_sha256 = hashlib.sha256(body.encode()).hexdigest()
                columns["chunk_id"].append(make_chunk_id(doc_id, text_sha256, piece.char_start))
                columns["doc_id"].append(doc_id)
                columns["tenant"].append(tenant)
                columns["ordinal"].append(ordinal)
                columns["char_start"].append(piece.char_start)
                columns["char_end"].append(piece.char_end)
                columns["text"].append(body)
                columns["text_sha256"].append(text_sha256)
                columns["token_count"].append(piece.token_count)
                columns["heading"].append(piece.heading)
        yield pa.RecordBatch.from_pydict(columns, schema=CHUNK_COLUMNS)
