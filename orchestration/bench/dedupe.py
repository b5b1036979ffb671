"""How fast MinHash signatures are made here, in datasketch and in a plain loop, and what the bands find."""

import hashlib
import importlib.metadata
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasketch import MinHash

from assets.transforms.minhash import MinHashConfig, bands, shingle_jaccard, signatures, warm_up
from orchestration.bench.report import BenchResult

_PROSE = re.compile(r"METADATA$|LICEN[CS]E|COPYING|NOTICE|AUTHORS|README|\.(txt|md|rst)$", re.IGNORECASE)
_SAMPLE_MB = 2.0  # a rate needs no more of what takes seconds a megabyte
_LOOP_SAMPLE_MB = 0.5
_DOCUMENT_WORDS = 1000
_BINS = (0.5, 0.6, 0.7, 0.8, 0.9)
_PRIME = (1 << 61) - 1


def run(megabytes: int = 64) -> BenchResult:
    """Measures all three on the same text, in one thread each.

    Time is the thread's processor time, so that a rate is a core's whatever else the machine does. Everything
    from strings to finished signatures counts: words, shingles and 128 permutations.

    Args:
        megabytes: Text for our kernel, in MB (1e6 bytes); the slower two get a part of it.

    Returns:
        MB/s a core of each, ratios of ours to theirs, and at Jaccard similarities around 0.5 to 0.9 the share
        of pairs that the bands found beside the share that theory expects.
    """
    config = MinHashConfig()
    rng = np.random.default_rng(0)
    pieces = list(_pieces())
    texts = _texts(pieces, megabytes, rng)
    warm_up()
    array = pa.array(texts, pa.large_string())
    figures = {
        "text_mb": round(_size_mb(texts), 1),
        "headwater_mb_s": _rate(texts, lambda: signatures(array, config)),
    }
    sample = _first(texts, _SAMPLE_MB)
    figures["datasketch_mb_s"] = _rate(sample, lambda: _by_datasketch(sample, config))
    short = _first(texts, _LOOP_SAMPLE_MB)
    figures["python_loop_mb_s"] = _rate(short, lambda: _by_loop(short, config))
    ratios = {
        f"headwater_to_{name}": figures["headwater_mb_s"] / figures[f"{name}_mb_s"]
        for name in ("datasketch", "python_loop")
    }
    return BenchResult("dedupe", figures | _recall(pieces, config, rng), ratios)


def _pieces() -> Iterator[list[str]]:
    """Real prose cut into documents of so many words: what installed distributions say about themselves."""
    for distribution in importlib.metadata.distributions():
        for file in distribution.files or []:
            path = Path(str(file.locate()))
            if _PROSE.search(file.name) and path.is_file():
                words = path.read_text(errors="ignore").split(" ")
                for at in range(0, len(words), _DOCUMENT_WORDS):
                    yield words[at : at + _DOCUMENT_WORDS]


def _edited(words: list[str], share: float, rng: np.random.Generator) -> str:
    """The text with that share of its words replaced by new ones."""
    edited = list(words)
    for at in rng.integers(0, len(words), round(share * len(words))):
        edited[at] = f"w{rng.integers(1 << 40)}"
    return " ".join(edited)


def _texts(pieces: list[list[str]], megabytes: int, rng: np.random.Generator) -> list[str]:
    """Documents of that size together; the pieces are repeated, each time with other words replaced."""
    texts: list[str] = []
    size = 0
    while size < megabytes * 1e6:
        words = pieces[len(texts) % len(pieces)]
        texts.append(_edited(words, 0.02, rng))
        size += len(texts[-1].encode())
    return texts


def _size_mb(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def _first(texts: list[str], megabytes: float) -> list[str]:
    ends = np.cumsum([len(text.encode()) for text in texts])
    return texts[: int(np.searchsorted(ends, megabytes * 1e6)) + 1]


def _rate(texts: list[str], work: Callable[[], object]) -> float:
    """MB/s of processor time, the best of three, for noise only ever slows."""
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
    """The library's batch update of each document; its permutations are made once and copied."""
    empty = MinHash(num_perm=config.permutations, seed=config.seed)
    for text in texts:
        empty.copy().update_batch(_shingles(text, config))


def _by_loop(texts: list[str], config: MinHashConfig) -> None:
    """What one writes first: Python's integers, one hash function after the other."""
    functions = [(2 * i + 1, i * i + 7) for i in range(1, config.permutations + 1)]
    for text in texts:
        digests = [
            hashlib.blake2b(shingle, digest_size=8).digest() for shingle in set(_shingles(text, config))
        ]
        values = [int.from_bytes(digest) for digest in digests]
        _ = [min((a * value + b) % _PRIME for value in values) for a, b in functions]


def _recall(pieces: list[list[str]], config: MinHashConfig, rng: np.random.Generator) -> dict[str, float]:
    """The share of pairs with a band in common, and 1 - (1 - J^rows)^bands, by exact Jaccard similarity J."""
    long = [words for words in pieces if len(words) > 200][:1500]
    texts = pa.array(
        [" ".join(words) for words in long]
        + [_edited(words, float(rng.uniform(0.005, 0.08)), rng) for words in long],
        pa.large_string(),
    )
    left = np.arange(len(long))
    jaccard = shingle_jaccard(texts, left, left + len(long), config)
    values = bands(signatures(texts, config), config)
    hit = (values[: len(long)] == values[len(long) :]).any(axis=1)
    figures = {}
    for center in _BINS:
        near = np.abs(jaccard - center) < 0.05
        if near.any():
            expected = 1 - (1 - jaccard[near] ** config.rows) ** config.bands
            figures[f"lsh_recall_at_{center}"] = float(hit[near].mean())
            figures[f"lsh_recall_expected_at_{center}"] = float(expected.mean())
    return figures
