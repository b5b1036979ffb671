"""Engine releases: which engine answers, the decisions about it, and going back to an earlier one.

Until the first decision, the engine that the settings name answers. From then on the one that the release log
says is live does, made again from the settings that its decision kept, and another one that the settings name
is held until it is released. `ops.engine_releases` shows the log's rows about engines to SQL.
"""

import getpass
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.releases import append_missing
from assets.lake.tables import ENGINE_RELEASES
from common.lineage import Lineage
from common.redaction import has_credentials
from inference.answering.retrieval_settings import Approval, RetrievalSettings
from inference.engines.generator import EngineConfig, approval_digest, engine_name
from inference.engines.protocol import Engine
from quality.evaluation.verdict import Gain, Outcome, PairVerdict, Verdict
from retrieval.index.release_log import GATE, Decision, ReleaseConflict, ReleaseLog

logger = logging.getLogger(__name__)

EngineDecision = Literal["released", "held", "promoted", "rolled_back"]


class EngineNotReleasable(ValueError):
    """An engine can not be released or gone back to; the message says why."""


class EngineRelease(BaseModel, frozen=True):
    """A row of `ops.engine_releases`.

    Attributes:
        engine: The engine's name.
        generator_digest: Its digest.
        decision: What was decided about it; all but `held` had it answer.
        reason: Why, in a sentence.
        config: The settings by which it is made again.
        questions: The questions that it was measured on; None if it was not.
        metrics: What was measured, by the name of the figure.
        gains: By figure, how much it had more than the engine that answered then.
        against: The digest of that engine; None if it was not measured.
        questions_digest: The `question_set_digest` of the questions; None if it was not measured.
        outcome: The verdict, also where the questions do not decide; None if it was not measured.
        questions_needed: How many questions it takes to decide; None where it is decided.
        approval_digest: Its digest less the embedder, about which the release of the index decides; None
            where it was decided before that was kept, and then no engine is the one that was approved.
        retrieval_digest: The digest of how passages are found for it (`RetrievalSettings`).
        pair_digest: The `pair_digest` of the two engines as they were asked; None if it was not measured.
        decided_by: `gate`, or the name of a person.
        decided_at: When; set when it is logged.
    """

    engine: str
    generator_digest: str
    decision: EngineDecision
    reason: str
    config: EngineConfig
    questions: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    gains: dict[str, Gain] = Field(default_factory=dict)
    against: str | None = None
    questions_digest: str | None = None
    outcome: Outcome | None = None
    questions_needed: int | None = None
    approval_digest: str | None = None
    retrieval_digest: str | None = None
    pair_digest: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None

    @property
    def answers(self) -> bool:
        """Whether the decision had the engine answer."""
        return self.decision != "held"

    @property
    def approval(self) -> Approval:
        """What the decision had answer."""
        return Approval(self.approval_digest, self.retrieval_digest)

    @property
    def pair_verdict(self) -> PairVerdict | None:
        """The verdict on the two engines as they were asked; None if it was not measured."""
        if self.pair_digest is None or self.questions_digest is None or self.outcome is None:
            return None
        return PairVerdict(
            self.questions_digest,
            max((each.questions or 0 for each in self.gains.values()), default=0),
            Verdict(self.outcome, self.reason, self.questions_needed),
            self.questions or "",
            self.decided_at or datetime.now(UTC),
        )


@dataclass(frozen=True)
class EngineStanding:
    """Which engine answers, and what of the one that the settings name.

    Attributes:
        configured: The engine that the settings name.
        live: The decision by which an engine answers; None before the first decision.
        last: The newest decision about the configured engine; None if there is none.
    """

    configured: EngineConfig
    live: EngineRelease | None
    last: EngineRelease | None

    @property
    def held(self) -> bool:
        """Whether another engine answers than the one that the settings name."""
        return self.live is not None and not self.configured.answers_as(self.live.config)

    @property
    def answering(self) -> EngineConfig:
        """The engine that answers."""
        return self.live.config if self.live is not None and self.held else self.configured

    def held_because(self) -> str | None:
        """Returns in a sentence why the configured engine does not answer, and the cure; None if it does."""
        if self.live is None or not self.held:
            return None
        why = "it has not been measured beside it"
        if self.last is not None and self.last.decision == "held":
            why = self.last.reason
        elif self.live.decision == "rolled_back":
            why = self.live.reason
        return (
            f"{self.live.engine} answers, as {self.live.decision}; {engine_name(self.configured)}, which the "
            f"settings name, is held: {why}. `headwater evaluate-answers QUESTIONS --gate` measures it, "
            "`headwater engines promote --reason …` has it answer"
        )


def engine_releases(log: ReleaseLog) -> list[EngineRelease]:
    """Returns every decision about engines, newest first."""
    return [_engine_release(each) for each in reversed(log.decisions("engine"))]


def stored_engine_releases(lake: Lake) -> list[EngineRelease]:
    """Returns what `ops.engine_releases` has of `engine_releases`, for who has no database."""
    if lake.version(ENGINE_RELEASES.name) == 0:
        return []
    rows = lake.query(
        "select * from decisions order by decided_at desc", decisions=lake.delta(ENGINE_RELEASES.name)
    ).to_pylist()
    encoded = ("config", "metrics", "gains")
    return [
        EngineRelease.model_validate(row | {name: json.loads(row[name]) for name in encoded}) for row in rows
    ]


def engine_standing(decisions: Sequence[EngineRelease], configured: EngineConfig) -> EngineStanding:
    """Returns which engine answers where the settings name `configured`.

    Args:
        decisions: Every decision about engines, newest first.
        configured: The engine that the settings name.
    """
    live = next((each for each in decisions if each.answers), None)
    last = next((each for each in decisions if configured.answers_as(each.config)), None)
    return EngineStanding(configured, live, last)


def answering_engine(log: ReleaseLog, configured: EngineConfig) -> EngineStanding:
    """Returns which engine answers, and logs a warning where it is not the configured one."""
    standing = engine_standing(engine_releases(log), configured)
    held = standing.held_because()
    if held:
        logger.warning("%s", held)
    return standing


def approved_engine(log: ReleaseLog) -> Approval | None:
    """Returns what was approved to answer; None before the first decision."""
    live = log.live("engine")
    return _engine_release(live).approval if live else None


def log_engine_decision(lake: Lake, log: ReleaseLog, decision: EngineRelease, since: int) -> EngineRelease:
    """Adds a decision to the release log; if it is not `held`, the engine answers from now on.

    Args:
        lake: The tables, whose `ops.engine_releases` follows.
        log: The release log.
        decision: What was decided.
        since: The newest row of the log when the evaluation began.

    Returns:
        The decision with its time.

    Raises:
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another decision about engines was made since then.
    """
    row = Decision(
        "engine",
        "",
        decision.decision,
        decision.generator_digest,
        decision.reason,
        decision.decided_by or GATE,
        decision.model_dump_json(),
    )
    if decision.answers:
        live = log.live("engine")
        if live is not None and live.move_id > since:
            raise ReleaseConflict(f"{live.digest} was {live.decision} meanwhile; decide again")
        logged = log.move(row, live.digest if live else None)
    else:
        logged = log.add_verdict(row, since)
    project_engine_releases(lake, log)
    return _engine_release(logged)


def adopt_engine_releases(lake: Lake, log: ReleaseLog) -> None:
    """Adds the rows of `ops.engine_releases` to a release log that has no decision about engines.

    So of before there was a log, and where PostgreSQL was lost: what was not approved does not answer then.
    """
    if log.live("engine") is not None:
        return
    engines = lake.query(
        "select * from t order by decided_at", t=lake.delta(ENGINE_RELEASES.name)
    ).to_pylist()
    decisions = list[Decision]()
    for row in engines:
        encoded = {name: json.loads(row[name]) for name in ("config", "metrics", "gains")}
        moves = row["decision"] != "held"
        before = next((place for place in range(len(decisions), 0, -1) if decisions[place - 1].moves), None)
        if row["decision"] == "rolled_back":  # the next rollback goes on back from the engine returned to
            before = _before_return(decisions, before, row["generator_digest"])
        decisions.append(
            Decision(
                "engine",
                "",
                row["decision"],
                row["generator_digest"],
                row["reason"],
                row["decided_by"] or "",
                json.dumps(row | encoded, default=str),
                moves,
                before if moves else None,
                at=row["decided_at"],
            )
        )
    log.adopt(decisions)


def _before_return(decisions: list[Decision], live: int | None, digest: str) -> int | None:
    """Returns what comes before the move, on the way back from the live one, that has a digest be live."""
    place = live
    while place is not None:
        move = decisions[place - 1]
        if move.digest == digest:
            return move.before
        place = move.before
    return live


def project_engine_releases(lake: Lake, log: ReleaseLog) -> int:
    """Appends to `ops.engine_releases` the log's rows about engines; see `append_missing`."""

    def columns(decision: Decision) -> dict[str, Any]:
        release = _engine_release(decision)
        return release.model_dump() | {
            "config": release.config.model_dump_json(),
            "metrics": json.dumps(release.metrics, sort_keys=True),
            "gains": json.dumps({name: asdict(each) for name, each in release.gains.items()}, sort_keys=True),
        }

    def lineage(newest: Decision) -> Lineage:
        return Lineage(
            run_id=f"move {newest.move_id} of the release log",
            asset="ops/engine_releases",
            code_version=CODE_VERSION,
            config_digest=newest.digest or "",
            inputs={},
        )

    return append_missing(lake, ENGINE_RELEASES, log.decisions("engine"), columns, lineage)


def _engine_release(row: Decision) -> EngineRelease:
    release = EngineRelease.model_validate_json(row.record)
    said = {"decision": row.decision, "reason": row.reason}
    return release.model_copy(update=said | {"decided_by": row.decided_by, "decided_at": row.at})


def decided_engine(
    engine: Engine,
    config: EngineConfig,
    decision: EngineDecision,
    reason: str,
    retrieval: RetrievalSettings,
) -> EngineRelease:
    """Returns a decision about an engine, to be logged.

    Raises:
        EngineNotReleasable: Its address holds credentials, which would be stored, or no reason is given.
    """
    if config.endpoint and has_credentials(config.endpoint):
        raise EngineNotReleasable(
            "the endpoint's URL holds a user or a password, and a release would store it: give the URL "
            "without it, and name the variable that holds the key in HEADWATER_GENERATOR__API_KEY_ENV"
        )
    if not reason.strip():
        raise EngineNotReleasable("the reason is empty: say why this engine is to answer")
    return EngineRelease(
        engine=engine.name,
        generator_digest=engine.digest,
        decision=decision,
        reason=reason.strip(),
        approval_digest=approval_digest(engine),
        retrieval_digest=retrieval.digest,
        decided_by=getpass.getuser() if decision == "promoted" else GATE,
        config=config.with_absolute_paths(),
    )


def roll_back_engine(
    lake: Lake,
    log: ReleaseLog,
    digest: str | None,
    reason: str,
    require_unchanged: Callable[[EngineRelease], None],
) -> EngineRelease:
    """Has an earlier engine answer again.

    Args:
        lake: The tables.
        log: The release log.
        digest: The digest of the engine, or its beginning; None for the one that answered before.
        reason: Why, in a sentence.
        require_unchanged: Raises an error if that engine, made again, is not what it was.

    Raises:
        EngineNotReleasable: No engine, or no other than the live one, answered before; or several have
            digests with that beginning.
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another decision was made at the same time.
    """
    live, way = log.live("engine"), log.way_back("engine")
    if live is None:
        raise EngineNotReleasable(
            "no engine was released yet: `headwater evaluate-answers QUESTIONS --gate` releases one"
        )
    moves = [each for each in reversed(log.decisions("engine")) if each.moves]
    among = way if digest is None else moves
    others = [
        each for each in among if each.digest != live.digest and str(each.digest).startswith(digest or "")
    ]
    if not others or (digest is not None and len({each.digest for each in others}) > 1):
        names = {each.digest: _engine_release(each).engine for each in moves}
        known = ", ".join(f"{each} ({name})" for each, name in names.items())
        wanted = f"one engine {digest!r}" if digest else "an engine before the live one"
        raise EngineNotReleasable(f"there is not {wanted} to go back to; there were {known}")
    to = next((each for each in way if each.digest == others[0].digest), None)
    require_unchanged(_engine_release(to or others[0]))
    said = f"rolled back from {_engine_release(live).engine}: {reason.strip()}"
    row = replace(others[0], decision="rolled_back", reason=said, decided_by=getpass.getuser(), at=None)
    logged = log.move_back(row, to, live.digest) if to else log.move(row, live.digest)
    project_engine_releases(lake, log)
    return _engine_release(logged)
