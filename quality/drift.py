"""Drift statistics: are the rows of a batch distributed like those of a reference?

Numbers are compared by the two-sample Kolmogorov-Smirnov statistic, categories and length bins by the
population stability index, vectors by the distance of their means. A threshold is the larger of two values:
the difference that chance alone explains, and the smallest difference that matters. The second is needed
because with enough rows every difference is significant.

All tests of one batch together raise a false alarm in at most the share `alpha` of batches without drift
(Bonferroni's inequality, which holds however the columns depend on one another).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

Test = Literal["ks", "psi", "centroid"]
Floats: TypeAlias = npt.NDArray[np.float64]

_OTHER = "(other)"
_PERMUTATIONS_PER_BLOCK = 256


class DriftConfig(BaseModel):
    """The thresholds of drift tests, and whether drift blocks."""

    on_drift: Literal["warn", "block"] = "warn"
    """`warn` shows it and lets pass; `block` closes the table's gate until a person sets `warn` again."""
    min_documents: int = Field(default=50, ge=2)
    """The fewest new documents, and earlier ones, that are compared; fewer new ones wait for more."""
    max_documents: int = Field(default=10_000, ge=100)
    """The most documents compared of a batch or reference, chosen by their ids, which are digests."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """The share of unshifted batches in which any test may raise a false alarm."""
    min_ks: float = Field(default=0.1, ge=0, le=1)
    """The least difference of two cumulative shares that counts as drift."""
    min_psi: float = Field(default=0.1, ge=0)
    """Below 0.1 is no change, above 0.25 a large one (Siddiqi, "Credit Risk Scorecards", 2006)."""
    min_centroid_distance: float = Field(default=0.02, ge=0, le=2)
    """The least cosine distance of mean vectors that counts as drift."""
    permutations: int = Field(default=4000, ge=100)
    """Resamples behind a permutation threshold; few of them cost power, never false alarms."""
    seed: int = 0
    """Of the resamples, so that a batch gets the same verdict each time."""


@dataclass(frozen=True)
class DriftFinding:
    """The result of one drift test of one column.

    Attributes:
        column: The column that was compared.
        test: `ks`, `psi` or `centroid`.
        statistic: The difference found.
        threshold: The largest difference that is no drift.
    """

    column: str
    test: Test
    statistic: float
    threshold: float

    @property
    def drifted(self) -> bool:
        """True if the statistic is larger than the threshold."""
        return self.statistic > self.threshold

    def __str__(self) -> str:
        """Returns the finding in a sentence."""
        relation = "above" if self.drifted else "within"
        return f"{self.column}: {self.test} {self.statistic:.3f}, {relation} {self.threshold:.3f}"


def column_drift(
    batch: pa.Table,
    reference: pa.Table,
    config: DriftConfig,
    *,
    numbers: Sequence[str] = (),
    categories: Sequence[str] = (),
    binned: Sequence[str] = (),
) -> list[DriftFinding]:
    """Returns a drift finding for each compared column of a batch and a reference.

    Args:
        batch: The new rows.
        reference: The earlier rows.
        config: Thresholds.
        numbers: Columns compared as distributions; nulls and NaN are left out.
        categories: Columns of strings compared as shares; null is a category.
        binned: Columns of non-negative numbers compared as shares of the reference's deciles.

    Returns:
        One finding per column, in the order given; none for a column without values in the batch or the
        reference.

    Raises:
        KeyError: A column is not in both tables.
    """
    alpha = config.alpha / max(len(numbers) + len(categories) + len(binned), 1)
    rng = np.random.default_rng(config.seed)
    findings = []
    for name in numbers:
        here, before = _numbers(batch[name]), _numbers(reference[name])
        if len(here) and len(before):
            threshold = max(config.min_ks, _ks_critical(len(here), len(before), alpha))
            findings.append(DriftFinding(name, "ks", ks_statistic(here, before), threshold))
    shares = [(name, _category_counts(batch[name], reference[name])) for name in categories]
    shares += [(name, _decile_counts(_numbers(batch[name]), _numbers(reference[name]))) for name in binned]
    for name, counts in shares:
        if counts is not None:
            threshold = max(config.min_psi, _psi_critical(*counts, alpha, config.permutations, rng))
            label = f"{name} in bins" if name in binned else name
            findings.append(DriftFinding(label, "psi", population_stability_index(*counts), threshold))
    return findings


def ks_statistic(batch: Floats, reference: Floats) -> float:
    """Returns the largest difference of the two empirical distribution functions, 0 to 1 (Smirnov 1939).

    Args:
        batch: n values, n > 0.
        reference: m values, m > 0.
    """
    batch, reference = np.sort(batch), np.sort(reference)
    values = np.concatenate([batch, reference])
    here = np.searchsorted(batch, values, side="right") / len(batch)
    before = np.searchsorted(reference, values, side="right") / len(reference)
    return float(np.abs(here - before).max())


def population_stability_index(batch: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Returns the population stability index: the sum of (p - q) ln(p / q) over bins, Jeffreys' divergence.

    Half a row is added to each bin, so that an empty bin gives a finite term.

    Args:
        batch: Counts per bin.
        reference: Counts of the same bins.
    """
    here, before = np.asarray(batch, np.float64) + 0.5, np.asarray(reference, np.float64) + 0.5
    here /= here.sum(axis=-1, keepdims=True)
    before /= before.sum(axis=-1, keepdims=True)
    return float(((here - before) * np.log(here / before)).sum(axis=-1))


def centroid_drift(
    batch: npt.NDArray[np.float32], reference: npt.NDArray[np.float32], config: DriftConfig
) -> DriftFinding:
    """Compares the mean vectors of a batch and a reference by a permutation test, one row per document.

    Callers average the vectors of a document's chunks first, because a permutation test needs independent
    rows. The threshold is a quantile of the same distance after rows are assigned to the two groups at
    random.

    Args:
        batch: Shape (n, d), n > 0.
        reference: Shape (m, d), m > 0.
        config: Thresholds; this test uses the whole `alpha`.
    """
    rows = np.concatenate([batch, reference]).astype(np.float64)
    total = rows.sum(axis=0)
    rng = np.random.default_rng(config.seed)
    drawn = np.empty(0)
    while len(drawn) < config.permutations:
        n = min(_PERMUTATIONS_PER_BLOCK, config.permutations - len(drawn))
        dealt = rng.permuted(np.tile(np.arange(len(rows)) < len(batch), (n, 1)), axis=1)
        sums = dealt.astype(np.float64) @ rows
        drawn = np.append(drawn, _cosine_distance(sums, total - sums))
    observed = _cosine_distance(batch.sum(axis=0, dtype=np.float64), reference.sum(axis=0, dtype=np.float64))
    threshold = max(config.min_centroid_distance, _upper_quantile(drawn, config.alpha))
    return DriftFinding("vector", "centroid", float(observed), threshold)


def _cosine_distance(left: Floats, right: Floats) -> Floats:
    norms = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    cosine = (left * right).sum(axis=-1) / np.where(norms > 0, norms, 1)
    return np.asarray(1 - cosine)


def _numbers(column: pa.ChunkedArray) -> Floats:
    values = column.cast(pa.float64()).drop_null().to_numpy()
    return values[~np.isnan(values)]


def _ks_critical(n: int, m: int, alpha: float) -> float:
    """Returns what two samples of one distribution exceed with a probability of at most alpha.

    By the first term of Smirnov's limit distribution ("Table for estimating the goodness of fit of empirical
    distributions", Annals of Mathematical Statistics 19, 1948), which is an upper bound of it. Ties make
    the test more careful, never less.
    """
    return float(np.sqrt(np.log(2 / alpha) / 2 * (n + m) / (n * m)))


def _psi_critical(
    batch: npt.NDArray[np.int64],
    reference: npt.NDArray[np.int64],
    alpha: float,
    permutations: int,
    rng: np.random.Generator,
) -> float:
    """Returns what the index exceeds by chance alone, by dealing the pooled rows out at random.

    Given the pooled counts, a random batch's are multivariate hypergeometric, so no row is shuffled. The
    index's chi-squared limit (Yurdakul, "Statistical properties of the population stability index", 2018)
    needs more rows per bin than rare languages have.
    """
    pooled = batch + reference
    drawn = rng.multivariate_hypergeometric(pooled, int(batch.sum()), size=permutations, method="marginals")
    here, before = drawn + 0.5, pooled - drawn + 0.5
    here /= here.sum(axis=1, keepdims=True)
    before /= before.sum(axis=1, keepdims=True)
    return _upper_quantile(((here - before) * np.log(here / before)).sum(axis=1), alpha)


def _upper_quantile(drawn: Floats, alpha: float) -> float:
    """Returns what a further draw of a permutation distribution exceeds with probability at most alpha.

    Of k draws and one more, each is as likely as the others to be the largest (Phipson and Smyth,
    "Permutation p-values should never be zero", 2010). Where k is too small for alpha it is the largest one.
    """
    place = min(len(drawn), int(np.ceil((1 - alpha) * (len(drawn) + 1))))
    return float(np.sort(drawn)[place - 1])


def _category_counts(
    batch: pa.ChunkedArray, reference: pa.ChunkedArray
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Counts each category in both; categories with fewer than five rows in all are one."""
    if not len(batch) or not len(reference):
        return None
    pooled = pc.fill_null(
        pa.chunked_array([*batch.cast(pa.string()).chunks, *reference.cast(pa.string()).chunks]), _OTHER
    )
    codes = pooled.combine_chunks().dictionary_encode().indices.to_numpy()
    here = np.bincount(codes[: len(batch)], minlength=int(codes.max()) + 1)
    before = np.bincount(codes[len(batch) :], minlength=len(here))
    rare = here + before < 5
    if rare.any():
        here = np.append(here[~rare], here[rare].sum())
        before = np.append(before[~rare], before[rare].sum())
    return here, before


def _decile_counts(
    batch: Floats, reference: Floats
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Counts each bin in both, between the deciles of all rows: the reference's own bins would favour it."""
    if not len(batch) or not len(reference):
        return None
    edges = np.unique(np.quantile(np.concatenate([batch, reference]), np.linspace(0.1, 0.9, 9)))
    bins = len(edges) + 1
    here = np.bincount(np.searchsorted(edges, batch), minlength=bins)
    return here, np.bincount(np.searchsorted(edges, reference), minlength=bins)
