"""`headwater bench verdicts` simulates what the gates do, and they keep their promise in it."""

import numpy as np
import pytest

from orchestration.bench.verdicts import SimulatedGate, bench_verdicts
from quality.evaluation.engine_gate import EngineGate, decide_engine_release


def test_the_promise_holds_in_every_cell_and_the_rule_before_broke_it() -> None:
    rows = bench_verdicts(0.02, lambda line: None, simulations=300).rows
    assert len(rows) == 8 * 8 * 3
    for row in rows:
        assert row.released + row.refused + row.undecided == pytest.approx(100)
        broken = row.released if row.true_difference_points <= -2 else row.refused
        assert broken <= 5, row
        assert row.promised == ("released ≤ 5%" if row.true_difference_points <= -2 else "refused ≤ 5%")

    def cell(points: int, questions: int, discordant: float) -> SimulatedGate:
        return next(
            row
            for row in rows
            if (row.true_difference_points, row.questions, row.discordant_percent)
            == (points, questions, discordant)
        )

    assert cell(-10, 50, 40).released_before > 50
    assert cell(0, 500, 0).released == 100
    assert cell(20, 1000, 20).released == 100
    assert cell(-20, 1000, 20).refused == 100


def test_a_cell_is_what_the_gate_says() -> None:
    counts = np.array([0, 208, 0])
    gains = np.repeat([-1.0, 0.0, 1.0], counts)
    assert decide_engine_release({"right": gains}, EngineGate(tolerance=0.02)).released
    rows = bench_verdicts(0.02, lambda line: None, simulations=2).rows
    ties = {row.questions: row.released for row in rows if row.discordant_percent == 0}
    assert ties == {5: 0, 10: 0, 20: 0, 50: 0, 100: 0, 200: 0, 500: 100, 1000: 100}
