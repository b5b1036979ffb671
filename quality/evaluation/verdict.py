"""Verdicts: whether a candidate may go live, from what it has more than what is live, question by question.

Released is what was shown to be no worse than the tolerance allows (non-inferiority), in every figure.
Refused is what was shown to be worse than that, in some figure. What the questions are too few to show is
undecided, and then a person decides.

Each figure is tested by betting (`quality.betting`), at a level of 5%. The promise is for the gate as a
whole:

- A candidate of which at least one figure is truly worse than allowed is released with a chance of at most
  5%. All figures have to pass, and to pass wrongly it has to pass in that figure too, so their number needs
  no correction (the intersection-union test; Berger, Technometrics 1982).
- A candidate of which no figure is truly worse than allowed is refused with a chance of at most 5%. Any one
  figure refuses, so these tests are corrected for their number (Holm, Scandinavian Journal of Statistics
  1979).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from quality.betting import ALPHA, Values, interval, lower_bound, p_value, student_interval, values_needed

Outcome = Literal["released", "refused", "undecided"]
LOG_LIKELIHOOD = "log_likelihood"
"""How likely a token of held-out responses is, in nats: what a generator's adapter is trained for."""
UNBOUNDED = ("words", LOG_LIKELIHOOD)
"""Figures without known ends."""


@dataclass(frozen=True)
class Verdict:
    """What a gate says of a candidate.

    Attributes:
        outcome: What. reason: Why, in a sentence. questions_needed: How many questions a set of the same kind
            needs to decide about a candidate that is as good as what is live; None where it is decided, or
            more questions are not known to help.
    """

    outcome: Outcome
    reason: str
    questions_needed: int | None = None

    @property
    def released(self) -> bool:
        """Whether the candidate may go live."""
        return self.outcome == "released"


@dataclass(frozen=True)
class Gain:
    """How much a candidate has more of a figure than what it is compared with.

    Attributes:
        difference: The mean difference over the questions.
        low: The lower end of its 95% interval.
        high: The upper end.
        questions: How many questions give the figure of both; None if it was kept before that was counted.
    """

    difference: float
    low: float
    high: float
    questions: int | None = None

    def __str__(self) -> str:
        """Returns the difference with its interval, such as `-0.100 [-0.200, -0.030]`."""
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired_gains(differences: Mapping[str, Values]) -> dict[str, Gain]:
    """Returns the means of paired differences with their 95% intervals, of those that have one.

    The intervals are by betting, so that they hold for one question too; those of a figure without known ends
    are Student's, from two questions on.

    Args:
        differences: By figure, (questions,) the candidate's less the other's; between -1 and 1, unless the
            figure is one of `UNBOUNDED`.
    """
    gains = {}
    for name, each in differences.items():
        ends = student_interval(each) if name in UNBOUNDED else interval(each, -1.0, 1.0)
        if ends is not None and len(each):
            gains[name] = Gain(float(each.mean()), *ends, len(each))
    return gains


@dataclass(frozen=True)
class ComparedFigure:
    """A figure of a candidate and of what is live, on the same questions.

    Attributes:
        name: The figure's name.
        gains: (questions,) how much better the candidate is at each of at least one question. More than 1
            counts as 1, and less than -1 as -1, so that a figure without known ends can be tested: what is
            shown is about the mean of gains that are limited so.
        tolerance: How much worse the candidate may be, which is as little as makes no odds.
        better: Whether it has to be better, and not only no worse.
    """

    name: str
    gains: Values
    tolerance: float
    better: bool = False

    def __post_init__(self) -> None:
        """Limits the gains."""
        object.__setattr__(self, "gains", np.clip(self.gains, -1.0, 1.0))

    @property
    def margin(self) -> float:
        """What the mean gain has to be above."""
        return 0.0 if self.better else -self.tolerance

    @property
    def passes(self) -> bool:
        """Whether the mean gain was shown to be above the margin."""
        return self.margin <= -1 or p_value(self.gains, self.margin) <= ALPHA

    @property
    def p_of_loss(self) -> float:
        """The p-value of the hypothesis that the mean gain is at least the margin."""
        return p_value(-self.gains, -self.margin)

    @property
    def questions_needed(self) -> int | None:
        """How many questions of such a spread tell a mean gain from one that is less by the tolerance.

        They show that one that is as good is no worse, and that one that is better by the tolerance is
        better. None if the tolerance is zero: no number does.
        """
        return values_needed(np.concatenate([self.gains, -self.gains]), -min(self.tolerance, 0.99))

    def __str__(self) -> str:
        """Returns the mean gain, and the bound that decides, such as `right -0.100 (at least -0.300)`."""
        return f"{self.name} {self.gains.mean():+.3f} (at least {lower_bound(self.gains):+.3f})"


def judge(figures: Sequence[ComparedFigure], beside: str) -> Verdict:
    """Returns whether a candidate may go live, from all figures that count.

    Args:
        figures: The figures.
        beside: What is live, such as `the live engine`.
    """
    unknown = [each.name for each in figures if np.isnan(each.gains).any()]
    if unknown or not figures:
        said = f"{', '.join(unknown)} is not a number at some question" if unknown else "nothing was compared"
        return Verdict("undecided", f"not decided beside {beside}: {said}")
    worse = [f"{each.name} {each.gains.mean():+.3f}" for each in shown_worse(figures)]
    if worse:
        return Verdict("refused", f"worse than {beside}: {', '.join(worse)}")
    not_shown = [each for each in figures if not each.passes]
    if not not_shown:
        return Verdict("released", f"no worse than {beside}: {', '.join(map(str, figures))}")
    asked, lacking = max(len(each.gains) for each in figures), 0
    reasons = []
    for each in not_shown:
        needed, given = each.questions_needed, len(each.gains)
        if needed is None:
            enough = "and no number of questions shows a tolerance of zero"
        elif needed <= given:
            enough = f"of about {needed:,} needed"
        else:
            enough = f"about {needed:,} needed"
            lacking = max(lacking, needed - given)
        above = "zero" if each.better else f"{each.margin:+.3f}"
        reasons.append(
            f"{each}, needs above {above}: {given:,} question{'' if given == 1 else 's'}, {enough}"
        )
    return Verdict(
        "undecided",
        f"not decided beside {beside}: {'; '.join(reasons)}. A person decides it with --because",
        asked + lacking if lacking else None,
    )


def shown_worse(figures: Sequence[ComparedFigure]) -> list[ComparedFigure]:
    """Returns the figures that were shown to be worse than allowed, corrected for their number."""
    rejected = []
    by_evidence = sorted(((each.p_of_loss, number) for number, each in enumerate(figures)))
    for place, (p, number) in enumerate(by_evidence):
        if p > ALPHA / (len(figures) - place):
            break
        rejected.append(number)
    return [figures[number] for number in sorted(rejected)]


@dataclass(frozen=True)
class PairVerdict:
    """A verdict on a candidate beside what was live, on one set of questions.

    Attributes:
        questions_digest: The `question_set_digest` of the questions.
        asked: How many questions there were.
        verdict: The verdict.
        dataset: What the questions are called.
        decided_at: When.
    """

    questions_digest: str
    asked: int
    verdict: Verdict
    dataset: str
    decided_at: datetime

    def __str__(self) -> str:
        """Returns where and when it was given."""
        return f"decided on {self.dataset} ({self.questions_digest}) at {self.decided_at:%Y-%m-%d %H:%M} UTC"

    def gives_way_to(self, later: "PairVerdict") -> bool:
        """Returns whether it is undecided for want of questions, and a later one has as many as it takes."""
        needed = self.verdict.questions_needed
        return needed is not None and later.asked >= needed

    def overrules(self) -> str:
        """Returns that a verdict on other questions does not count."""
        if self.verdict.outcome != "undecided":
            return f"does not decide: it was {self.verdict.outcome}, {self}"
        needed = self.verdict.questions_needed
        why = "where there were enough" if needed is None else f"and {needed:,} questions are needed"
        return f"does not decide: it was not {self}, {why}"


def deciding_verdict(verdicts: Iterable[PairVerdict]) -> PairVerdict | None:
    """Returns which of the verdicts on one pair decides; None if there is none.

    The first one does, whatever comparisons on other questions say later: trying sets of questions until one
    releases would make the promise void. Only one that is undecided for want of questions gives way, to the
    first one after it on as many as it said are needed.

    Args:
        verdicts: All verdicts on a candidate beside what is live, oldest first.
    """
    deciding: PairVerdict | None = None
    for each in verdicts:
        if deciding is None or deciding.gives_way_to(each):
            deciding = each
    return deciding


def question_set_digest(questions: Iterable[object]) -> str:
    """Returns a digest of a set of questions, in 16 hex digits, whatever their order.

    Args:
        questions: The questions, each with all that is known of its answers: dataclasses, or their parts in
            tuples.
    """
    hashes = sorted(
        hashlib.sha256(json.dumps(each, default=asdict).encode()).hexdigest() for each in questions
    )
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[:16]
