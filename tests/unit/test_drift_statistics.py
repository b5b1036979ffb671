"""Unshifted batches raise few alarms, shifted ones are found, and the statistics are those of the books."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import ks_2samp

from quality.drift import (
    DriftConfig,
    DriftFinding,
    centroid_drift,
    column_drift,
    ks_statistic,
    population_stability_index,
)

CONFIG = DriftConfig()
BATCHES = 400
NUMBERS = [f"signal_{at}" for at in range(20)]
values = hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(-5, 5).map(float))
counts = hnp.arrays(np.int64, 5, elements=st.integers(0, 200))


def documents(rng: np.random.Generator, rows: int, language: float = 0.05, longer: float = 1.0) -> pa.Table:
    """Documents with correlated signals, some of them mostly zero as real ones are."""
    common = rng.normal(size=rows)
    columns = {name: common + at / 5 * rng.normal(size=rows) for at, name in enumerate(NUMBERS)}
    for name in NUMBERS[:5]:
        columns[name] = np.maximum(0, columns[name] - 1.5)
    table = pa.table(columns)
    table = table.append_column(
        "language", pa.array(np.where(rng.random(rows) < language, "de", "en").tolist())
    )
    table = table.append_column("source", pa.array(rng.choice(list("abcdefgh"), rows).tolist()))
    return table.append_column("char_count", pa.array(np.exp(rng.normal(7, 1, rows)) * longer))


def found(batch: pa.Table, reference: pa.Table, config: DriftConfig = CONFIG) -> set[str]:
    findings = column_drift(
        batch,
        reference,
        config,
        numbers=NUMBERS,
        categories=["language", "source"],
        binned=["char_count"],
    )
    assert len(findings) == len(NUMBERS) + 3
    return {each.column for each in findings if each.drifted}


@pytest.mark.parametrize("rows", [50, 400])
def test_unshifted_batches_raise_few_alarms(rows: int) -> None:
    rng = np.random.default_rng(rows)
    lake = documents(rng, 4000)
    # Without the least effects, which would hide what the tests themselves do.
    config = DriftConfig(min_ks=0, min_psi=0, permutations=1000)
    alarms = 0
    for _ in range(BATCHES):
        order = rng.permutation(len(lake))
        alarms += bool(found(lake.take(order[:rows]), lake.take(order[rows : rows + 1500]), config))
    # 5% of 400 is 20, and a binomial of that mean is above 30 once in a hundred times.
    assert alarms <= 30, alarms
    assert alarms / BATCHES <= 0.05


@pytest.mark.parametrize(
    ("shift", "column"),
    [
        ({"language": 0.4}, "language"),
        ({"longer": 3.0}, "char_count in bins"),
    ],
)
def test_a_shifted_batch_is_found_and_names_its_column(shift: dict[str, float], column: str) -> None:
    rng = np.random.default_rng(3)
    hits = sum(column in found(documents(rng, 100, **shift), documents(rng, 1000)) for _ in range(20))
    assert hits >= 19


def test_a_shifted_signal_is_found_in_batches_of_the_least_size() -> None:
    rng = np.random.default_rng(4)
    batch = documents(rng, CONFIG.min_documents)
    shifted = batch.set_column(7, NUMBERS[7], pa.array(np.array(batch[NUMBERS[7]]) + 3))
    assert NUMBERS[7] in found(shifted, documents(rng, 500))


def test_a_difference_too_small_to_matter_is_not_told() -> None:
    rng = np.random.default_rng(5)
    batch, reference = documents(rng, 20_000), documents(rng, 20_000, longer=1.1)
    assert found(batch, reference) == set()
    assert "char_count in bins" in found(batch, reference, DriftConfig(min_psi=0))


def test_the_same_batch_has_the_same_findings() -> None:
    rng = np.random.default_rng(6)
    batch, reference = documents(rng, 60), documents(rng, 600)
    first, second = (
        column_drift(batch, reference, CONFIG, numbers=NUMBERS, categories=["source"]) for _ in range(2)
    )
    assert first == second


@settings(deadline=None)
@given(values, values)
def test_ks_is_scipys(batch: np.ndarray, reference: np.ndarray) -> None:
    assert ks_statistic(batch, reference) == pytest.approx(ks_2samp(batch, reference).statistic)


@settings(deadline=None)
@given(counts, counts)
def test_psi_is_symmetric_and_zero_only_for_equal_shares(left: np.ndarray, right: np.ndarray) -> None:
    assert population_stability_index(left, right) == pytest.approx(population_stability_index(right, left))
    assert population_stability_index(left, right) >= 0
    assert population_stability_index(left, left) == 0


def test_psi_by_hand() -> None:
    # Shares of 3/4 and 1/4 against the reverse, with half a row in each bin: 29.5/40 = 0.7375.
    big, small = 29.5 / 40, 10.5 / 40
    assert population_stability_index([29, 10], [10, 29]) == pytest.approx(
        2 * (big - small) * np.log(big / small)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_nulls_and_rare_categories_never_stop_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 30))
    column = pa.array([None if rng.random() < 0.5 else float(rng.normal()) for _ in range(rows)])
    names = pa.array([None if rng.random() < 0.3 else str(rng.integers(50)) for _ in range(rows)])
    table = pa.table({"x": column.cast(pa.float64()), "name": names.cast(pa.string())})
    findings = column_drift(table, table, CONFIG, numbers=["x"], categories=["name"], binned=["x"])
    assert not any(each.drifted for each in findings)


def test_a_column_that_is_not_there_is_named() -> None:
    table = pa.table({"x": [1.0]})
    with pytest.raises(KeyError, match="y"):
        column_drift(table, table, CONFIG, numbers=["y"])


def vectors(rng: np.random.Generator, rows: int, shift: float = 0.0) -> np.ndarray:
    drawn = rng.normal(size=(rows, 16)) + 1
    drawn[:, 0] += shift
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def test_unshifted_centroids_raise_few_alarms_and_a_shifted_one_is_found() -> None:
    rng = np.random.default_rng(8)
    config = DriftConfig(min_centroid_distance=0, permutations=400)
    alarms = sum(centroid_drift(vectors(rng, 50), vectors(rng, 300), config).drifted for _ in range(BATCHES))
    # The test is exact: 5% of 400 are 20 in expectation, 35 at the most but once in a thousand times.
    assert alarms <= 35, alarms
    assert all(centroid_drift(vectors(rng, 50, 3.0), vectors(rng, 300), CONFIG).drifted for _ in range(5))
    assert not centroid_drift(vectors(rng, 50), vectors(rng, 300), CONFIG).drifted


def test_a_finding_says_what_it_compared() -> None:
    assert str(DriftFinding("language", "psi", 0.5, 0.1)) == "language: psi 0.500, above 0.100"
    assert not DriftFinding("language", "psi", 0.1, 0.1).drifted
