"""Which questions ask the same, word for word or nearly: one rule for every split and every evaluator.

Two questions are alike whose sets of four consecutive characters have a Jaccard similarity of `ALIKE`, as
"What is the default port?" and "What's the default port?". It is estimated by MinHash (Broder, "On the
resemblance and containment of documents", 1997), of which eight bits a value are enough (Li and König, "b-Bit
Minwise Hashing", 2010); banding finds the pairs, so that no set is compared with all of another. What most
questions of a set begin with, such as a template, is no part of what they ask: four characters that stand in
more than a tenth of them do not count.

When questions are split into those that a model learns from and those that measure it, two are also alike
whose vectors by the packaged embedder have a cosine of `ALIKE_COSINE` and whose 4-grams have a similarity of
`LEAST_ALIKE`, as "What is PWMScan?" and "Describe PWMScan". The second condition keeps apart questions that
are near only by a common template.

A fingerprint is made of hashes alone, so that what a model learned from is known without the text. Vectors
are not kept with a model: a text can be guessed from its vector (Morris et al., "Text Embeddings Reveal
(Almost) As Much As Text", 2023).
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedder import Embedder

ALIKE = 0.6
"""The Jaccard similarity of character 4-grams from which two questions are alike."""
ALIKE_COSINE = 0.92
"""The cosine from which they are, if they share grams too. It finds 44 pairs of SciFact's 1,105 claims that
the grams alone do not, nearly all of them claims with one word or a negation changed, and 2 pairs of BioASQ's
1,494 questions; it was chosen by reading these pairs."""
LEAST_ALIKE = 0.2
"""The Jaccard similarity that questions of near vectors have at least."""

_CHARS = 4
_VALUES = 128
_COMMON_SHARE = 0.1
_FEWEST_COMMON = 10
"""Questions that a gram must stand in, beside the share, to be left out as common."""
_MOST_OF_BAND = 16
"""Questions of one band that another is compared with: those that all share it are nearly equal."""
_BLOCK_CHARS = 2_000_000
_BLOCK_COSINES = 20_000_000
_SIGNS = re.compile(r"[\s!-/:-@\[-`{-~\u00a1-\u00bf\u2000-\u206f\u3000-\u303f]+")
_FACTORS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64
)
_MULTIPLIERS, _ADDENDS = np.frombuffer(
    hashlib.shake_256(b"headwater").digest(2 * _VALUES * 8), "<u8"
).reshape(2, _VALUES) | np.uint64(1)
"""Kept with every model: another number would make all fingerprints others."""

Grams = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Fingerprints:
    """What tells whether a text is one of some texts, or alike.

    Attributes:
        digests: SHA-256 of each text without regard to case and white space; (texts, 32) uint8.
        signatures: MinHash of each, (texts, 128) uint8; zeros where nothing is left to compare.
        common: Hashes of the grams that are left out, sorted.
    """

    digests: npt.NDArray[np.uint8]
    signatures: npt.NDArray[np.uint8]
    common: Grams

    def holds(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Returns which texts are one of these, or alike; (texts,) bool."""
        known = {each.tobytes() for each in self.digests}
        found = np.array([text_digest(each) in known for each in texts], bool)
        signatures = _signatures(texts, self.common)
        ours, theirs = _candidates(signatures, self.signatures)
        similar = _similarity(signatures[ours], self.signatures[theirs]) >= ALIKE
        found[ours[similar]] = True
        return found


@dataclass(frozen=True)
class _DistinctTexts:
    """The distinct ones of some texts, in the order of their digests, which tells nothing of them.

    Attributes:
        signatures: As in `Fingerprints`, and so is `common`.
        places: Of each of the texts, which distinct one it is; (all texts,).
    """

    texts: Sequence[str]
    digests: Sequence[bytes]
    signatures: npt.NDArray[np.uint8]
    common: Grams
    places: npt.NDArray[np.intp]


def _distinct_texts(texts: Iterable[str]) -> _DistinctTexts:
    by_digest: dict[bytes, str] = {}
    own = []
    for text in texts:
        own.append(text_digest(text))
        by_digest[own[-1]] = text
    digests = sorted(by_digest)
    distinct = [by_digest[each] for each in digests]
    common, signatures = _signed(distinct)
    place = {digest: at for at, digest in enumerate(digests)}
    places = np.array([place[each] for each in own], np.intp)
    return _DistinctTexts(distinct, digests, signatures, common, places)


def fingerprints(texts: Iterable[str]) -> Fingerprints:
    """Returns the fingerprints of the distinct ones of some texts, in an order that tells nothing of them."""
    found = _distinct_texts(texts)
    digests = np.frombuffer(b"".join(found.digests), np.uint8).reshape(-1, 32)
    return Fingerprints(digests, found.signatures, found.common)


def clusters(questions: Sequence[str]) -> npt.NDArray[np.intp]:
    """Returns a number for each question; those alike by grams or vectors, or by way of others, share it."""
    distinct = _distinct_texts(questions)
    signatures = distinct.signatures
    left, right = _neighbours(signatures)
    similar = _similarity(signatures[left], signatures[right]) >= ALIKE
    rows = np.arange(len(signatures))
    near_left, near_right = _near_pairs(distinct, rows, rows)
    left, right = np.append(left[similar], near_left), np.append(right[similar], near_right)
    return _components(len(rows), left, right)[distinct.places]


def alike_to(texts: Sequence[str], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns which of some texts are among the chosen ones of them, or alike to one by grams; (texts,)."""
    distinct = _distinct_texts(texts)
    rows = np.unique(distinct.places[chosen])
    return _alike_by_grams(distinct.signatures, rows)[distinct.places]


def questions_alike_to(questions: Sequence[str], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns which questions are chosen, or alike to one that is, by grams or vectors; (questions,)."""
    distinct = _distinct_texts(questions)
    rows = np.unique(distinct.places[chosen])
    found = _alike_by_grams(distinct.signatures, rows)
    near, _ = _near_pairs(distinct, np.flatnonzero(~found), rows)
    found[near] = True
    return found[distinct.places]


def _alike_by_grams(signatures: npt.NDArray[np.uint8], chosen: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    ours, theirs = _candidates(signatures, signatures[chosen])
    similar = _similarity(signatures[ours], signatures[chosen[theirs]]) >= ALIKE
    found = np.zeros(len(signatures), bool)
    found[chosen] = found[ours[similar]] = True
    return found


@cache
def _embedder() -> Embedder:
    return Embedder(EmbedderConfig())


def _near_pairs(
    questions: _DistinctTexts, ours: npt.NDArray[np.intp], theirs: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Returns the places of pairs of ours and theirs that are alike by their vectors."""
    pairs = [np.zeros((0, 2), np.intp)]
    if len(ours) and len(theirs):
        rows = np.union1d(ours, theirs)
        vectors = _embedder().encode([questions.texts[row] for row in rows])
        at = np.zeros(len(questions.texts), np.intp)
        at[rows] = np.arange(len(rows))
        for block in np.array_split(ours, len(ours) * len(theirs) // _BLOCK_COSINES + 1):
            near = np.argwhere(vectors[at[block]] @ vectors[at[theirs]].T >= ALIKE_COSINE)
            found = np.column_stack([block[near[:, 0]], theirs[near[:, 1]]])
            found = found[found[:, 0] != found[:, 1]]
            left, right = questions.signatures[found[:, 0]], questions.signatures[found[:, 1]]
            similar = _similarity(left, right) >= LEAST_ALIKE
            pairs.append(found[similar])
    both = np.concatenate(pairs)
    return both[:, 0], both[:, 1]


def sharing(names: Sequence[Collection[str]]) -> npt.NDArray[np.intp]:
    """Returns a number for each set of names; those that share a name, also by others, have the same."""
    place = {
        name: len(names) + at for at, name in enumerate(dict.fromkeys(n for each in names for n in each))
    }
    edges = [(row, place[name]) for row, each in enumerate(names) for name in each]
    left, right = np.array(edges, np.intp).reshape(-1, 2).T
    return _components(len(names) + len(place), left, right)[: len(names)]


def _components(count: int, left: npt.NDArray[np.intp], right: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    graph = coo_array((np.ones(len(left), np.bool_), (left, right)), (count, count))
    labels: npt.NDArray[np.intp] = connected_components(graph, directed=False)[1].astype(np.intp)
    return labels


def held_out(texts: Sequence[str], labels: npt.NDArray[np.intp], wanted: int) -> npt.NDArray[np.intp]:
    """Returns the places of texts to hold out: whole clusters in the order of hashes, until there are enough.

    A cluster with which there would be more than twice as many as are wanted is none of them.

    Args:
        texts: The texts.
        labels: The cluster of each, from `clusters` or `sharing`.
        wanted: How many distinct texts, about.
    """
    members: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(row)
    said = [text_digest(each) for each in texts]
    chosen: list[int] = []
    found: set[bytes] = set()
    for rows in sorted(members.values(), key=lambda rows: min(said[row] for row in rows)):
        if len(found) >= wanted:
            break
        more = {said[row] for row in rows}
        if len(found) + len(more) <= 2 * wanted:
            found |= more
            chosen += rows
    return np.array(sorted(chosen), np.intp)


def text_digest(text: str) -> bytes:
    """Returns SHA-256 of a text, the same whatever its case and white space."""
    same = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(same.encode("utf-8", "replace")).digest()


def _signed(texts: Sequence[str]) -> tuple[Grams, npt.NDArray[np.uint8]]:
    """Returns the grams that are common in some texts, and the signatures of the texts without them."""
    values, counts = np.empty(0, np.uint32), np.empty(0, np.intp)
    for block in _blocks(texts):
        of_block = np.unique_counts(_grams(block)[0])
        values, places = np.unique(np.concatenate([values, of_block.values]), return_inverse=True)
        counts = np.bincount(places, np.concatenate([counts, of_block.counts])).astype(np.intp)
    common = values[counts > max(_COMMON_SHARE * len(texts), _FEWEST_COMMON)]
    return common, _signatures(texts, common)


def _blocks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields texts, so many at once that their grams take some tens of megabytes."""
    ends = np.cumsum([len(each) for each in texts]) // _BLOCK_CHARS
    for rows in np.split(np.arange(len(texts)), np.flatnonzero(np.diff(ends)) + 1):
        yield [texts[row] for row in rows]


def _grams(texts: Sequence[str]) -> tuple[Grams, npt.NDArray[np.intp]]:
    """Returns the distinct grams of each text as hashes, text after text, and where each text begins."""
    plain = (unicodedata.normalize("NFKC", each).casefold() for each in texts)
    padded = [f" {_SIGNS.sub(' ', each).strip()} " for each in plain]
    lengths = np.array([len(each) for each in padded], np.intp)
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    at = np.flatnonzero(owner[: 1 - _CHARS] == owner[_CHARS - 1 :])  # a gram is of one text
    hashed = np.zeros(len(at), np.uint64)
    for place, factor in enumerate(_FACTORS):
        hashed = (hashed ^ codes[at + place]) * factor
    hashed ^= hashed >> np.uint64(29)
    keys = np.unique((owner[at].astype(np.uint64) << np.uint64(32)) | (hashed & np.uint64(0xFFFFFFFF)))
    starts = np.searchsorted(keys, np.arange(len(texts) + 1, dtype=np.uint64) << np.uint64(32))
    return keys.astype(np.uint32), starts


def _signatures(texts: Sequence[str], common: Grams) -> npt.NDArray[np.uint8]:
    parts = [np.zeros((0, _VALUES), np.uint8)]
    for block in _blocks(texts):
        grams, starts = _grams(block)
        kept = ~np.isin(grams, common)
        starts = np.concatenate([[0], np.cumsum(kept)])[starts]
        values = grams[kept].astype(np.uint64)
        found = np.zeros((len(block), _VALUES), np.uint8)
        rows = np.flatnonzero(starts[1:] > starts[:-1])
        for place in range(_VALUES if len(rows) else 0):
            hashed = (values * _MULTIPLIERS[place] + _ADDENDS[place]) >> np.uint64(32)
            least = np.minimum.reduceat(hashed, starts[rows])
            found[rows, place] = (least * np.uint64(0x9E3779B1) >> np.uint64(16)).astype(np.uint8)
        parts.append(found)
    return np.concatenate(parts)


def _bands(signatures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
    """Returns the bands of all signatures that are not empty, sorted, and whose each is.

    A band is four values: two texts of similarity 0.6 share one of their 32 with a probability of 0.99.
    """
    rows = np.flatnonzero(signatures.any(axis=1))
    bands = np.ascontiguousarray(signatures[rows]).view(np.uint32).astype(np.uint64)
    bands |= np.arange(bands.shape[1], dtype=np.uint64) << np.uint64(32)
    order = np.argsort(bands.ravel(), kind="stable")
    return bands.ravel()[order], np.repeat(rows, bands.shape[1])[order]


def _neighbours(signatures: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Returns pairs that share a band: each with the first of the band, and with the one before it."""
    bands, owners = _bands(signatures)
    same = np.flatnonzero(bands[1:] == bands[:-1]) + 1
    first = np.searchsorted(bands, bands[same])
    left = np.concatenate([owners[first], owners[same - 1]])
    return _distinct(left, np.concatenate([owners[same]] * 2), len(signatures))


def _candidates(
    ours: npt.NDArray[np.uint8], theirs: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Returns pairs of ours and theirs that share a band, of each band a few of theirs."""
    (our_bands, our_rows), (bands, rows) = _bands(ours), _bands(theirs)
    low = np.searchsorted(bands, our_bands, "left")
    counts = np.minimum(np.searchsorted(bands, our_bands, "right") - low, _MOST_OF_BAND)
    into = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return _distinct(np.repeat(our_rows, counts), rows[np.repeat(low, counts) + into], len(theirs))


def _distinct(
    left: npt.NDArray[np.intp], right: npt.NDArray[np.intp], count: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    keys = np.unique(left * np.intp(count) + right)
    return keys // count, keys % count


def _similarity(left: npt.NDArray[np.uint8], right: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Returns the estimated Jaccard similarity of pairs; values of eight bits agree by chance once in 256."""
    agree = (left == right).mean(axis=1)
    return (agree - 1 / 256) / (1 - 1 / 256)
