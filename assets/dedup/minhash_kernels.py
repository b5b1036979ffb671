"""The compiled loops of MinHash, over UTF-8 bytes where Arrow holds them; see `minhash`.

Numba infers the types and keeps the machine code in `__pycache__` beside this file (or in `NUMBA_CACHE_DIR`).
Every Spark worker of the machine shares this cache, and `minhash.compile_minhash_kernels` fills it at set-up.
Importing this module imports Numba, which takes most of a second, so only code that computes signatures
imports it.
"""
# ruff: noqa: ANN001, ANN201, ANN202

import numpy as np
from numba import njit

NO_MINIMUM = np.uint32(0xFFFFFFFF)
_FNV_OFFSET = np.uint64(0xCBF29CE484222325)
_FNV_PRIME = np.uint64(0x100000001B3)
SHINGLE_BASE = np.uint64(0x9E3779B97F4A7C15)
_BLOCK = 4096  # shingles whose hashes stay in the first-level cache while all permutations pass over them

_FOLDED = np.zeros(128, dtype=np.uint8)  # 0 separates words
for _byte in b"abcdefghijklmnopqrstuvwxyz0123456789":
    _FOLDED[_byte] = _byte
    _FOLDED[ord(chr(_byte).upper())] = _byte


@njit(nogil=True, cache=True, inline="always")
def _mix(h):  # type: ignore[no-untyped-def]
    """The finaliser of MurmurHash3 (Appleby): every input bit changes every output bit."""
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xFF51AFD7ED558CCD)
    h ^= h >> np.uint64(33)
    h *= np.uint64(0xC4CEB9FE1A85EC53)
    return h ^ (h >> np.uint64(33))


@njit(nogil=True, cache=True)
def _words(data, start, stop, out):  # type: ignore[no-untyped-def]
    """Writes the 64-bit FNV-1a hash of every word of `data[start:stop]` to `out`; returns how many."""
    count = 0
    word = _FNV_OFFSET
    in_word = False
    at = start
    while at < stop:
        byte = data[at]
        if byte < 0x80:
            # Without a branch on where words end, which no processor predicts; a store that does not
            # count is overwritten by the next word.
            folded = np.uint64(_FOLDED[byte])
            inside = folded != 0
            out[count] = word
            count += in_word and not inside
            word = (word ^ folded) * _FNV_PRIME if inside else _FNV_OFFSET
            in_word = inside
            at += 1
            continue
        width = 2 if byte < 0xE0 else (3 if byte < 0xF0 else 4)
        end = min(at + width, stop)
        separates = byte == 0xC2 or byte == 0xE2 or (byte == 0xE3 and data[at + 1] == 0x80)
        alone = 0xE3 <= byte <= 0xED or byte >= 0xF0
        if in_word and (separates or alone):
            out[count] = word
            count += 1
            word = _FNV_OFFSET
            in_word = False
        if not separates:
            for k in range(at, end):
                word = (word ^ np.uint64(data[k])) * _FNV_PRIME
            if alone:
                out[count] = word
                count += 1
                word = _FNV_OFFSET
            in_word = not alone
        at = end
    if in_word:
        out[count] = word
        count += 1
    return count


@njit(nogil=True, cache=True)
def _shingles(data, start, stop, shingle_words, out):  # type: ignore[no-untyped-def]
    """Writes the 64-bit hash of every shingle of `data[start:stop]` to `out`; returns how many.

    `out` must have room for a word every two bytes. A shingle's hash is a polynomial in its words' hashes;
    it takes the place of its first word, which no later shingle needs.
    """
    words = _words(data, start, stop, out)
    width = min(words, shingle_words)
    count = words - width + 1 if words > 0 else 0
    for i in range(count):
        shingle = np.uint64(0)
        for j in range(width):
            shingle = shingle * SHINGLE_BASE + out[i + j]
        out[i] = _mix(shingle)
    return count


@njit(nogil=True, cache=True)
def fill_signatures(data, offsets, valid, shingle_words, multipliers, increments, out):  # type: ignore[no-untyped-def]
    """Fills `out` with one signature per document; see `minhash_signatures`."""
    longest = 0
    for row in range(len(out)):
        longest = max(longest, offsets[row + 1] - offsets[row])
    shingles = np.empty(longest // 2 + 1, dtype=np.uint64)
    block = np.empty(_BLOCK, dtype=np.uint32)
    for row in range(len(out)):
        out[row, :] = NO_MINIMUM
        if not valid[row]:
            continue
        count = _shingles(data, offsets[row], offsets[row + 1], shingle_words, shingles)
        for begin in range(0, count, _BLOCK):
            size = min(_BLOCK, count - begin)
            for i in range(size):
                block[i] = np.uint32(shingles[begin + i] >> np.uint64(32))
            for p in range(len(multipliers)):
                # Over shingles, not permutations: a reduction over 32-bit lanes that LLVM turns into SIMD.
                multiplier = multipliers[p]
                increment = increments[p]
                least = out[row, p]
                for i in range(size):
                    least = min(least, np.uint32(block[i] * multiplier + increment))
                out[row, p] = least


@njit(nogil=True, cache=True)
def fill_lsh_bands(signatures, rows, out):  # type: ignore[no-untyped-def]
    """Fills `out` with one 64-bit hash per band of each signature."""
    for row in range(out.shape[0]):
        for band in range(out.shape[1]):
            h = np.uint64(band + 1) * SHINGLE_BASE
            for i in range(band * rows, (band + 1) * rows):
                h = _mix(h ^ np.uint64(signatures[row, i]))
            out[row, band] = h


@njit(nogil=True, cache=True)
def _distinct(hashes):  # type: ignore[no-untyped-def]
    """Sorts `hashes` in place and moves its distinct values to the front; returns how many."""
    hashes.sort()
    count = 0
    for i in range(len(hashes)):
        if count == 0 or hashes[i] != hashes[count - 1]:
            hashes[count] = hashes[i]
            count += 1
    return count


@njit(nogil=True, cache=True)
def fill_jaccard(data, offsets, valid, left, right, shingle_words, out):  # type: ignore[no-untyped-def]
    """Fills `out` with the Jaccard similarity of each pair's sets of shingle hashes.

    A text is in many pairs, and sorting its hashes takes ten times as long as merging two sorted sets. So
    each set is sorted only once.
    """
    used = np.zeros(len(valid), dtype=np.bool_)
    room = 0
    for pair in range(len(out)):
        for row in (left[pair], right[pair]):
            if valid[row] and not used[row]:
                used[row] = True
                room += (offsets[row + 1] - offsets[row]) // 2 + 1
    # More than they need; memory that is never written to is never taken.
    sets = np.empty(room, dtype=np.uint64)
    starts = np.zeros(len(valid), dtype=np.int64)
    ends = np.zeros(len(valid), dtype=np.int64)
    at = 0
    for row in range(len(valid)):
        if used[row]:
            count = _shingles(data, offsets[row], offsets[row + 1], shingle_words, sets[at:])
            starts[row] = at
            at += _distinct(sets[at : at + count])
            ends[row] = at
    for pair in range(len(out)):
        i, i_end = starts[left[pair]], ends[left[pair]]
        j, j_end = starts[right[pair]], ends[right[pair]]
        total = i_end - i + j_end - j
        common = 0
        while i < i_end and j < j_end:
            # Without a branch on which is less, which no processor predicts.
            a, b = sets[i], sets[j]
            common += a == b
            i += a <= b
            j += b <= a
        out[pair] = common / (total - common) if total > 0 else 0.0
