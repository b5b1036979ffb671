"""`bench chunking`: retrieval of answers with Headwater's chunker and with a recursive splitter."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.atomic_files import atomic_file
from orchestration.bench.report import BenchResult
from orchestration.settings import Settings
from retrieval.chunking.chunker import ChunkerConfig, load_chunk_tokenizer, split_into_chunks
from retrieval.embedding.embedding_model import EmbeddingModel, TextEmbedder

CHUNK_SIZES_TOKENS = (100, 160, 200, 240, 400)
TOP_CHUNKS = 5
BUDGET_CHARS = 5000
"""Chunks of different sizes are compared by the best that fit into this room: about 1,200 tokens."""

_RESAMPLES = 2000

Span = tuple[int, int]
Split = Callable[[str, int], list[Span]]


class NoBenchChunkingSet(RuntimeError):
    """The folder has no questions with spans, or langchain-text-splitters is not installed."""


@dataclass(frozen=True)
class _Wanted:
    """A question and the spans that answer it, as offsets into the concatenation of all texts."""

    question: str
    spans: list[Span]


def bench_chunking(settings: Settings, data: Path) -> BenchResult:
    """Compares the chunker with LangChain's recursive splitter at equal chunk sizes, by exact vector search.

    Vectors are cached in the state folder (`bench/`), so that an interrupted run can continue.

    Args:
        settings: The embedder, and the state folder.
        data: A folder in the layout of chunking_evaluation: `corpora/*.md` and `questions_df.csv` with the
            columns `question`, `references` (JSON: `start_index`, `end_index`, in characters) and
            `corpus_id`. The method is from Smith and Troynikov, "Evaluating Chunking Strategies for
            Retrieval" (2024).

    Returns:
        For each splitter and size: the number of chunks; the means over the questions of `recall@5`,
        `precision@5` and `iou@5`, counted in characters (a character retrieved twice counts twice against
        precision); and `recall_5000_chars`, the recall of the best chunks that together have 5,000
        characters. `gain_low` and `gain_high` bound the paired 95% bootstrap interval of Headwater's gain in
        `recall_5000_chars`.

    Raises:
        NoBenchChunkingSet: The folder is not in that layout, or langchain-text-splitters is not installed.
    """
    texts, wanted = _read(data)
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    splitters = {"headwater": _ours(model.tokenizer_path), "langchain": _theirs(model.tokenizer_path)}
    cache = settings.home / "bench"
    questions = model.embedder.encode_queries([each.question for each in wanted])
    figures, ratios = {"questions": float(len(wanted))}, {}
    for size in CHUNK_SIZES_TOKENS:
        scores = {}
        for name, split in splitters.items():
            spans, vectors = _cut(texts, split, size, partial(_vectors, model.embedder, cache))
            scores[name] = _scores(spans, _ranking(questions, vectors), wanted)
            figures[f"{name}_{size}_chunks"] = float(len(spans))
            figures |= {f"{name}_{size}_{measure}": v.mean() for measure, v in scores[name].items()}
        for measure in scores["headwater"]:
            ours, theirs = (scores[name][measure] for name in splitters)
            ratios[f"headwater_to_langchain_{size}_{measure}"] = float(ours.mean() / theirs.mean())
        gains = scores["headwater"][_BUDGETED] - scores["langchain"][_BUDGETED]
        figures[f"{size}_gain_low"], figures[f"{size}_gain_high"] = _interval(gains)
    return BenchResult("chunking", {name: float(value) for name, value in figures.items()}, ratios)


_BUDGETED = f"recall_{BUDGET_CHARS}_chars"


def _read(data: Path) -> tuple[list[str], list[_Wanted]]:
    questions, corpora = data / "questions_df.csv", sorted((data / "corpora").glob("*.md"))
    if not questions.is_file() or not corpora:
        raise NoBenchChunkingSet(
            f"{data} has no questions_df.csv or no corpora/*.md: name chunking_evaluation's"
        )
    texts = [path.read_text(encoding="utf-8") for path in corpora]
    starts = dict(zip((path.stem for path in corpora), _starts(texts), strict=True))
    wanted = []
    with questions.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                start = starts[row["corpus_id"]]
                spans = [
                    (start + reference["start_index"], start + reference["end_index"])
                    for reference in json.loads(row["references"])
                ]
                wanted.append(_Wanted(row["question"], spans))
            except (KeyError, TypeError, ValueError) as error:
                raise NoBenchChunkingSet(f"{questions}, record {number}: {error!r}") from error
    return texts, wanted


def _starts(texts: Sequence[str]) -> list[int]:
    """Returns the offset of each text in the concatenation of all, in which spans of two texts never meet."""
    return [0, *np.cumsum([len(text) for text in texts]).tolist()][:-1]


def _ours(tokenizer_path: Path) -> Split:
    tokenizer, default = load_chunk_tokenizer(tokenizer_path), ChunkerConfig()

    def split(text: str, size: int) -> list[Span]:
        least = size * default.min_tokens // default.max_tokens
        config = ChunkerConfig(max_tokens=size, min_tokens=least)
        return [
            (piece.char_start, piece.char_end) for piece in split_into_chunks(text, None, tokenizer, config)
        ]

    return split


def _theirs(tokenizer_path: Path) -> Split:
    try:
        from langchain_text_splitters import RecursiveCharacterTextSplitter
    except ImportError as error:
        raise NoBenchChunkingSet(
            "langchain-text-splitters is not installed: make setup EXTRAS=dev"
        ) from error
    tokenizer = load_chunk_tokenizer(tokenizer_path)

    @lru_cache(maxsize=1 << 17)  # it counts each word again and again
    def tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    def split(text: str, size: int) -> list[Span]:
        splitter = RecursiveCharacterTextSplitter(
            chunk_size=size, chunk_overlap=0, length_function=tokens, add_start_index=True
        )
        found = splitter.create_documents([text])
        spans = [(d.metadata["start_index"], d.metadata["start_index"] + len(d.page_content)) for d in found]
        if any(text[a:b] != d.page_content for (a, b), d in zip(spans, found, strict=True)):
            raise RuntimeError("langchain-text-splitters gave a chunk that is no span of the text")
        return spans

    return split


def _cut(
    texts: Sequence[str], split: Split, size: int, encode: Callable[[list[str]], npt.NDArray[np.float32]]
) -> tuple[list[Span], npt.NDArray[np.float32]]:
    """Returns the spans of the chunks of all texts, and their vectors."""
    spans, vectors = [], []
    for start, text in zip(_starts(texts), texts, strict=True):
        cut = split(text, size)
        spans += [(start + first, start + last) for first, last in cut]
        vectors.append(encode([text[first:last] for first, last in cut]))
    return spans, np.concatenate(vectors)


def _vectors(embedder: TextEmbedder, cache: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Returns vectors of shape (texts, dimension); each list of texts is embedded once per state folder."""
    key = hashlib.sha256("\x1f".join([embedder.digest, *texts]).encode()).hexdigest()
    kept = cache / f"{key}.npy"
    if not kept.is_file():
        distinct = sorted(set(texts))
        place = {text: i for i, text in enumerate(distinct)}
        vectors = embedder.encode(distinct)[[place[text] for text in texts]]
        with atomic_file(kept) as fresh:
            np.save(fresh, vectors)
    return np.load(kept)


def _ranking(questions: npt.NDArray[np.float32], chunks: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Returns the positions of the chunks for each question, nearest first."""
    return np.argsort(-(questions @ chunks.T), axis=1, kind="stable")


def _scores(
    spans: Sequence[Span], ranking: npt.NDArray[np.int64], wanted: Sequence[_Wanted]
) -> dict[str, npt.NDArray[np.float64]]:
    """Returns each measure as an array with a value per question."""
    rows = []
    for each, order in zip(wanted, ranking, strict=True):
        best = [spans[i] for i in order[:TOP_CHUNKS]]
        recall, precision, iou = bench_span_overlap(best, each.spans)
        within, _, _ = bench_span_overlap(list(_filling(spans, order, BUDGET_CHARS)), each.spans)
        rows.append((recall, precision, iou, within))
    names = (f"recall@{TOP_CHUNKS}", f"precision@{TOP_CHUNKS}", f"iou@{TOP_CHUNKS}", _BUDGETED)
    return dict(zip(names, np.array(rows).T, strict=True))


def _filling(spans: Sequence[Span], order: npt.NDArray[np.int64], budget: int) -> Iterable[Span]:
    """Yields the best chunks, the last one cut off where the budget ends."""
    for i in order:
        start, end = spans[i]
        end = min(end, start + budget)
        yield start, end
        budget -= end - start
        if budget == 0:
            return


def bench_span_overlap(retrieved: Sequence[Span], wanted: Sequence[Span]) -> tuple[float, float, float]:
    """Returns the recall, precision and intersection over union of retrieved spans, counted in characters.

    Args:
        retrieved: Spans; a character counts as often as it was retrieved.
        wanted: Spans; a character counts once.
    """
    wanted = _merged(wanted)
    hit = _merged([(max(a, c), min(b, d)) for a, b in retrieved for c, d in wanted if max(a, c) < min(b, d)])
    common = _length(hit)
    got, asked = _length(retrieved), _length(wanted)
    return common / asked, common / got, common / (got + asked - common)


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _length(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)


def _interval(gains: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Returns the 95% interval of a mean by the percentile bootstrap (Efron and Tibshirani, 1993)."""
    drawn = np.random.default_rng(0).integers(0, len(gains), (_RESAMPLES, len(gains)))
    low, high = np.percentile(gains[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
