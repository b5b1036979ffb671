"""Engine releases: which engine answers, the decisions about it, and going back to an earlier one.

Until the first decision, the engine that the settings name answers. From then on the newest decision that had
an engine answer is the pointer: that engine answers, made again from the settings that the decision kept, and
another one that the settings name is held until it is released. Decisions are appended to
`ops.engine_releases` under its fencing token, so of two at the same time one is refused.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, Field

from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import ENGINE_RELEASES
from inference.engines.generator import EngineConfig, engine_name
from inference.engines.protocol import Engine
from retrieval.lineage import Lineage
from retrieval.redaction import has_credentials

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
        gains: By figure, the difference to the engine that answered then, and the ends of its interval.
        decided_at: When; set when it is logged.
    """

    engine: str
    generator_digest: str
    decision: EngineDecision
    reason: str
    config: EngineConfig
    questions: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    gains: dict[str, dict[str, float]] = Field(default_factory=dict)
    decided_at: datetime | None = None

    @property
    def answers(self) -> bool:
        """Whether the decision had the engine answer."""
        return self.decision != "held"


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


def engine_releases(lake: Lake) -> list[EngineRelease]:
    """Returns every decision about engines, newest first."""
    if lake.version(ENGINE_RELEASES.name) == 0:
        return []  # nothing is loaded to read nothing: each process asks this before its first answer
    rows = lake.query(
        "select * from decisions order by decided_at desc", decisions=lake.delta(ENGINE_RELEASES.name)
    ).to_pylist()
    encoded = ("config", "metrics", "gains")
    return [
        EngineRelease.model_validate(row | {name: json.loads(row[name]) for name in encoded}) for row in rows
    ]


def engine_standing(lake: Lake, configured: EngineConfig) -> EngineStanding:
    """Returns which engine answers where the settings name `configured`."""
    decisions = engine_releases(lake)
    live = next((each for each in decisions if each.answers), None)
    last = next((each for each in decisions if configured.answers_as(each.config)), None)
    return EngineStanding(configured, live, last)


def answering_engine_config(lake: Lake, configured: EngineConfig) -> EngineConfig:
    """Returns the engine that answers, and logs a warning where it is not the configured one."""
    standing = engine_standing(lake, configured)
    held = standing.held_because()
    if held:
        logger.warning("%s", held)
    return standing.answering


def approved_engine_digest(lake: Lake, configured: EngineConfig) -> str | None:
    """Returns the digest of the engine that was approved to answer; None before the first decision."""
    live = engine_standing(lake, configured).live
    return live.generator_digest if live else None


def log_engine_decision(lake: Lake, decision: EngineRelease, token: int) -> EngineRelease:
    """Appends a decision; if it is not `held`, the engine answers from now on.

    Args:
        lake: The tables.
        decision: What was decided.
        token: The fencing token of `ops.engine_releases` when the evaluation began.

    Returns:
        The decision with its time.

    Raises:
        WriteConflict: Another decision was logged since then; nothing was written.
    """
    stamped = decision.model_copy(update={"decided_at": lake.stamp(ENGINE_RELEASES, "decided_at")})
    encoded = {
        "config": stamped.config.model_dump_json(),
        "metrics": json.dumps(stamped.metrics, sort_keys=True),
        "gains": json.dumps(stamped.gains, sort_keys=True),
    }
    lineage = Lineage(
        run_id=f"{stamped.decision} at {stamped.decided_at:%Y-%m-%dT%H:%M:%S}",
        asset="ops/engine_releases",
        code_version=CODE_VERSION,
        config_digest=stamped.generator_digest,
        inputs={},
        fence=token + 1,
    )
    rows = pa.Table.from_pylist([stamped.model_dump() | encoded], ENGINE_RELEASES.schema)
    lake.append(ENGINE_RELEASES, rows, lineage)
    return stamped


def decided_engine(
    engine: Engine,
    config: EngineConfig,
    decision: EngineDecision,
    reason: str,
    questions: str | None = None,
    metrics: Mapping[str, float] | None = None,
    gains: Mapping[str, Mapping[str, float]] | None = None,
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
        config=config.with_absolute_paths(),
        questions=questions,
        metrics=dict(metrics or {}),
        gains={name: dict(each) for name, each in (gains or {}).items()},
    )


def roll_back_engine(lake: Lake, digest: str | None, reason: str) -> EngineRelease:
    """Has an earlier engine answer again.

    Args:
        lake: The tables.
        digest: The digest of the engine, or its beginning; None for the one that answered before.
        reason: Why, in a sentence.

    Raises:
        EngineNotReleasable: No engine, or no other than the live one, answered before; or several have
            digests with that beginning.
        WriteConflict: Another decision was logged at the same time.
    """
    token = lake.fencing_token(ENGINE_RELEASES)
    answered = [each for each in engine_releases(lake) if each.answers]
    if not answered:
        raise EngineNotReleasable(
            "no engine was released yet: `headwater evaluate-answers QUESTIONS --gate` releases one"
        )
    earlier: dict[str, EngineRelease] = {}  # the newest first
    for each in answered:
        other = each.generator_digest != answered[0].generator_digest
        if other and each.generator_digest.startswith(digest or ""):
            earlier.setdefault(each.generator_digest, each)
    if not earlier or (digest is not None and len(earlier) > 1):
        known = ", ".join(dict.fromkeys(f"{each.generator_digest} ({each.engine})" for each in answered))
        wanted = f"one engine {digest!r}" if digest else "an engine before the live one"
        raise EngineNotReleasable(f"there is not {wanted} to go back to; there were {known}")
    before = next(iter(earlier.values()))
    return log_engine_decision(
        lake,
        before.model_copy(
            update={
                "decision": "rolled_back",
                "reason": f"rolled back from {answered[0].engine}: {reason.strip()}",
            }
        ),
        token,
    )
