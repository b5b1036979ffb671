"""`bench dedupe`: deduplication speed against datasketch, LSH recall, and the cost of adding a batch."""

import hashlib
import importlib.metadata
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasketch import MinHash, MinHashLSH

from assets.dedup.minhash import (
    MinHashConfig,
    compile_minhash_kernels,
    lsh_bands,
    minhash_signatures,
    shingle_jaccard,
)
from benchmarks.dedupe_lake import (
    BenchedDedupe,
    bench_added_documents,
    bench_vocabulary,
    bench_whole_lake,
)
from orchestration.bench.report import BenchResult

_PROSE = re.compile(r"METADATA$|LICEN[CS]E|COPYING|NOTICE|AUTHORS|README|\.(txt|md|rst)$", re.IGNORECASE)
_SAMPLE_MB = 2.0  # a rate needs no more of what takes seconds a megabyte
_LOOP_SAMPLE_MB = 0.5
_DOCUMENT_WORDS = 1000
_PAIR_WORDS = 200
_PAIRS = 40_000
"""Known pairs: some thousands a bin, so that chance moves a share by less than 0.01."""
_BINS = (0.5, 0.6, 0.7, 0.8, 0.9)
_PRIME = (1 << 61) - 1


def bench_dedupe(megabytes: int = 100, largest: int = 100_000) -> BenchResult:
    """Measures MinHash speed, LSH recall, a whole deduplication, and adding 1% to lakes of several sizes.

    Signature rates are in MB per second of one thread's processor time, so that other load on the machine
    does not count. They cover all work from strings to signatures: words, shingles and 128 permutations.
    Other times are wall time, or processor time where the name says `cpu`.

    Args:
        megabytes: Text to deduplicate, in MB (1e6 bytes). The signature rates of datasketch and of a plain
            Python loop are measured on a part of it; a deduplication by datasketch (`MinHash` and
            `MinHashLSH`) on all of it.
        largest: Number of documents in the largest lake that 1% is added to. The two smaller lakes have a
            tenth and a hundredth of it, but at least 10,000.

    Returns:
        Signature rates in MB/s per core of Headwater, datasketch and the plain loop, and their ratios. The
        share of pairs that LSH finds at Jaccard similarities from 0.5 to 0.9, and the share that theory
        predicts. Seconds, memory and precision of deduplicating the whole text with the assets, in a new
        process with its JVM, and with datasketch, in one process that holds the strings. For each lake the
        seconds and memory of adding 1%, and ratios between lakes of the seconds per added document.
    """
    config = MinHashConfig()
    rng = np.random.default_rng(0)
    pieces = list(_pieces())
    texts = _texts(pieces, megabytes, rng)
    compile_minhash_kernels()
    array = pa.array(texts, pa.large_string())
    figures = {
        "text_mb": round(_size_mb(texts), 1),
        "headwater_mb_s": _rate(texts, lambda: minhash_signatures(array, config)),
    }
    sample = _first(texts, _SAMPLE_MB)
    figures["datasketch_mb_s"] = _rate(sample, lambda: _by_datasketch(sample, config))
    short = _first(texts, _LOOP_SAMPLE_MB)
    figures["python_loop_mb_s"] = _rate(short, lambda: _by_loop(short, config))
    ratios = {
        f"headwater_to_{name}": figures["headwater_mb_s"] / figures[f"{name}_mb_s"]
        for name in ("datasketch", "python_loop")
    }
    figures |= _recall(pieces, config, rng)
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        made = bench_whole_lake(texts, Path(folder))
    figures |= {f"whole_{name}": value for name, value in made.figures().items() if name != "added"}
    figures["whole_candidate_precision"] = made.assets.similar_pairs / max(1, made.assets.candidate_pairs)
    began, began_cpu = time.perf_counter(), time.thread_time()
    _pairs_by_datasketch(texts, config)
    figures["datasketch_whole_s"] = time.perf_counter() - began
    figures["datasketch_whole_cpu_s"] = time.thread_time() - began_cpu
    ratios["whole_datasketch_to_headwater"] = figures["datasketch_whole_s"] / made.process.seconds
    ratios["whole_datasketch_to_headwater_cpu"] = figures["datasketch_whole_cpu_s"] / made.process.cpu_s
    words = bench_vocabulary(iter(pieces))
    lakes: dict[int, BenchedDedupe] = {}
    for documents in sorted({max(10_000, largest // part) for part in (100, 10, 1)}):
        with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
            lakes[documents] = bench_added_documents(documents, words, Path(folder))
        figures |= {f"lake_{documents}_{name}": value for name, value in lakes[documents].figures().items()}
    smallest = min(lakes)
    for documents in sorted(lakes)[1:]:
        larger, smaller = lakes[documents], lakes[smallest]
        ratios |= {
            f"{name}_per_added_document_{documents}_to_{smallest}": (
                seconds(larger) / larger.added / (seconds(smaller) / smaller.added)
            )
            for name, seconds in _SECONDS.items()
        }
    return BenchResult("dedupe", figures, ratios)


_SECONDS: dict[str, Callable[[BenchedDedupe], float]] = {
    "process": lambda measured: measured.process.seconds,
    "assets": lambda measured: measured.assets.signatures_s + measured.assets.duplicates_s,
}
"""What the cost of an added document is measured by."""


def bench_prose() -> Iterator[str]:
    """Yields the texts of installed distributions, such as licences and READMEs, one per file."""
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or []:
            path = Path(str(file.locate()))
            if _PROSE.search(file.name) and path.is_file():
                yield path.read_text(errors="ignore")


def _pieces() -> Iterator[list[str]]:
    """Yields real prose in documents of `_DOCUMENT_WORDS` words."""
    for text in bench_prose():
        words = text.split(" ")
        for at in range(0, len(words), _DOCUMENT_WORDS):
            yield words[at : at + _DOCUMENT_WORDS]


def _edited(words: list[str], share: float, rng: np.random.Generator) -> str:
    """Returns the text with a share of its words replaced by new ones."""
    edited = list(words)
    for at in rng.integers(0, len(words), round(share * len(words))):
        edited[at] = f"w{rng.integers(1 << 40)}"
    return " ".join(edited)


def _texts(pieces: list[list[str]], megabytes: int, rng: np.random.Generator) -> list[str]:
    """Returns documents of a total size; pieces are repeated, each time with other words replaced."""
    texts: list[str] = []
    size = 0
    while size < megabytes * 1e6:
        words = pieces[len(texts) % len(pieces)]
        texts.append(_edited(words, 0.01, rng))
        size += len(texts[-1].encode())
    return texts


def _size_mb(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def _first(texts: list[str], megabytes: float) -> list[str]:
    ends = np.cumsum([len(text.encode()) for text in texts])
    return texts[: int(np.searchsorted(ends, megabytes * 1e6)) + 1]


def _rate(texts: list[str], work: Callable[[], object]) -> float:
    """Returns MB per second of processor time, the best of three runs, because noise only slows."""
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return _size_mb(texts) / min(seconds)


def _shingles(text: str, config: MinHashConfig) -> list[bytes]:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return [
        " ".join(words[at : at + config.shingle_words]).encode()
        for at in range(max(1, len(words) - config.shingle_words + 1))
    ]


def _by_datasketch(texts: list[str], config: MinHashConfig) -> None:
    """Signs each document with the library's batch update; its permutations are made once and copied."""
    empty = MinHash(num_perm=config.permutations, seed=config.seed)
    for text in texts:
        empty.copy().update_batch(_shingles(text, config))


def _pairs_by_datasketch(texts: list[str], config: MinHashConfig) -> int:
    """Signs each document, looks up its candidates, inserts it, and returns the number of candidates."""
    index = MinHashLSH(num_perm=config.permutations, params=(config.bands, config.rows))
    empty = MinHash(num_perm=config.permutations, seed=config.seed)
    pairs = 0
    for number, text in enumerate(texts):
        signature = empty.copy()
        signature.update_batch(_shingles(text, config))
        pairs += len(index.query(signature))
        index.insert(number, signature)
    return pairs


def _by_loop(texts: list[str], config: MinHashConfig) -> None:
    """Computes the signatures in a plain Python loop, one hash function after the other."""
    functions = [(2 * i + 1, i * i + 7) for i in range(1, config.permutations + 1)]
    for text in texts:
        digests = [
            hashlib.blake2b(shingle, digest_size=8).digest() for shingle in set(_shingles(text, config))
        ]
        values = [int.from_bytes(digest) for digest in digests]
        _ = [min((a * value + b) % _PRIME for value in values) for a, b in functions]


def _recall(pieces: list[list[str]], config: MinHashConfig, rng: np.random.Generator) -> dict[str, float]:
    """Returns the share of pairs with a common band beside 1 - (1 - J^rows)^bands, by exact Jaccard J."""
    cut = [
        words[at : at + _PAIR_WORDS]
        for words in pieces
        for at in range(0, len(words) - _PAIR_WORDS + 1, _PAIR_WORDS)
    ]
    base = [cut[i] for i in rng.integers(0, len(cut), _PAIRS)]
    # A share s of words replaced touches x = 1 - (1 - s)^w of the shingles, and J = (1 - x) / (1 + x).
    wanted = rng.uniform(_BINS[0] - 0.1, 1.0, len(base))
    shares = 1 - (1 - (1 - wanted) / (1 + wanted)) ** (1 / config.shingle_words)
    texts = pa.array(
        [" ".join(words) for words in base]
        + [_edited(words, float(share), rng) for words, share in zip(base, shares, strict=True)],
        pa.large_string(),
    )
    left = np.arange(len(base))
    jaccard = shingle_jaccard(texts, left, left + len(base), config)
    values = lsh_bands(minhash_signatures(texts, config), config)
    hit = (values[: len(base)] == values[len(base) :]).any(axis=1)
    figures, errors = {}, []
    for center in _BINS:
        near = np.abs(jaccard - center) < 0.05
        expected = float((1 - (1 - jaccard[near] ** config.rows) ** config.bands).mean())
        figures[f"pairs_at_{center}"] = float(near.sum())
        figures[f"lsh_recall_at_{center}"] = float(hit[near].mean())
        figures[f"lsh_recall_expected_at_{center}"] = expected
        errors.append(abs(float(hit[near].mean()) - expected))
    return figures | {"lsh_recall_largest_error": max(errors)}
