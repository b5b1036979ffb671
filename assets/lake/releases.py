"""Releases: the release gate's verdicts, making a release live, and the log `ops.releases`.

PostgreSQL is the truth about releases: its pointer says what is live and moves by compare-and-swap; its live
history says what was live before. `ops.releases` follows. The release gate writes its verdict there, since a
release must be approved before it goes live; moves of the pointer are copied from PostgreSQL afterwards, by
whoever moved it, or by the next run where that one was killed.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
import pyarrow as pa
from pydantic import BaseModel
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION, WriteConflict
from assets.lake.tables import RELEASES
from quality.evaluation.verdict import Verdict
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.index.types import (
    IndexConflict,
    IndexPoint,
    IndexRelease,
    IndexReleaseDetails,
    IndexState,
    LiveHistoryEntry,
    UnknownIndexRelease,
)
from retrieval.lineage import Lineage
from retrieval.store.postgres import DatabaseUnavailable

logger = logging.getLogger(__name__)

Decision = Literal["approved", "refused", "undecided", "released", "rolled_back"]


class ReleaseNotApproved(RuntimeError):
    """A state of the index has not passed its evaluation, so it can not go live."""


class StoredRelease(BaseModel, frozen=True):
    """A row of `ops.releases`.

    Attributes:
        release_id: The release.
        decision: What was decided about it.
        reason: Why, in a sentence.
        generation: Its generation of the index.
        epoch: The epoch of that generation.
        model_digest: The embedding model of its vectors.
        metrics: Its evaluation, by the name of the metric.
        versions: The version of every table that it was made from.
        against: The release that was live when it was evaluated; None before the first, and of moves.
        questions_digest: The `question_set_digest` of the questions of its evaluation; None of moves.
    """

    release_id: str
    decision: Decision
    reason: str
    generation: int
    epoch: int
    model_digest: str
    metrics: dict[str, float]
    versions: dict[str, int]
    against: str | None = None
    questions_digest: str | None = None


def stored_release_name(point: IndexPoint) -> str:
    """Returns the name of the release of an epoch, such as `r1.2`; the same epoch has the same name."""
    return f"r{point.generation}.{point.epoch}"


def last_stored_verdict(lake: Lake, release_id: str) -> StoredRelease | None:
    """Returns the release gate's newest verdict on a release, or None if it was not evaluated."""
    return _newest_verdict(lake, "release_id = ?", [release_id])


def newest_stored_verdict(lake: Lake) -> StoredRelease | None:
    """Returns the release gate's newest verdict on any release, or None if it has given none."""
    return _newest_verdict(lake, "true", [])


def _newest_verdict(lake: Lake, condition: str, values: list[str]) -> StoredRelease | None:
    rows = lake.query(
        f"""
        select * from releases where {condition} and decision in ('approved', 'refused', 'undecided')
        order by decided_at desc limit 1
        """,
        values,
        releases=lake.delta(RELEASES.name),
    ).to_pylist()
    if not rows:
        return None
    row = rows[0]
    read = {"metrics": json.loads(row["metrics"]), "versions": json.loads(row["versions"])}
    return StoredRelease.model_validate(row | read)


def log_release_verdict(
    lake: Lake,
    state: IndexState,
    verdict: Verdict,
    metrics: dict[str, float],
    run_id: str,
    token: int,
    against: str | None = None,
    questions_digest: str | None = None,
) -> None:
    """Writes the release gate's verdict on a state of the index.

    Args:
        lake: The tables.
        state: What was evaluated.
        verdict: The verdict.
        metrics: The evaluation.
        run_id: The Dagster run of the gate.
        token: The fencing token of `ops.releases` when the evaluation began.
        against: The release that was live; None before the first.
        questions_digest: The `question_set_digest` of the questions.

    Raises:
        WriteConflict: Another decision was logged since then; nothing was written.
    """
    decision = StoredRelease(
        release_id=stored_release_name(state),
        decision="approved" if verdict.outcome == "released" else verdict.outcome,
        reason=verdict.reason,
        generation=state.generation,
        epoch=state.epoch,
        model_digest=state.model_digest,
        metrics=metrics,
        versions=state.lineage.inputs,
        against=against,
        questions_digest=questions_digest,
    )
    _append(lake, decision, run_id, token)


def make_release_live(
    lake: Lake,
    index: Index,
    state: IndexState,
    run_id: str,
    model: EmbeddingModel,
    expected: str | None = None,
    reason: str = "",
) -> IndexRelease:
    """Makes an approved state of the index live, and brings the log up to date with what is live.

    A state from which a user rolled back does not go live again until the index changes, and none goes live
    while somebody holds the live release.

    Args:
        lake: The tables.
        index: The index.
        state: The state.
        run_id: The run that makes it live; empty for none.
        model: The embedding model of its vectors.
        expected: The release that must be live; None for any.
        reason: Why, if it is more than that its evaluation approved it.

    Returns:
        The release that is live now.

    Raises:
        ReleaseNotApproved: When the state was refused, not decided or not evaluated.
        IndexConflict: When another release went live at the same time.
    """
    name, live, verdict = (
        stored_release_name(state),
        index.live(),
        last_stored_verdict(lake, stored_release_name(state)),
    )
    if verdict is None or verdict.decision != "approved":
        why = "it was not evaluated" if verdict is None else f"it was {verdict.decision}: {verdict.reason}"
        if verdict is not None and verdict.decision == "undecided":
            why = f"{verdict.reason}: `headwater releases approve {name} --because …`"
        raise ReleaseNotApproved(f"release {name} can not go live: {why}; what was live stays live")
    if expected is not None and (live is None or live.release_id != expected):
        raise IndexConflict(
            f"{live.release_id if live else 'nothing'} is live, not {expected!r}, which {name!r} was judged "
            "against; judge it again"
        )
    hold = index.live_hold()
    if hold is not None and live is not None and hold.release_id != name and expected is None:
        logger.warning("%s is held back: %s; `headwater hold --off` ends that", name, hold)
    elif live is None or all(entry.release_id != name for entry in index.live_history()):
        details = IndexReleaseDetails(
            metrics=verdict.metrics,
            versions=state.lineage.inputs,
            model_digest=state.model_digest,
            embedder=model.config,
            run_id=run_id,
        )
        live = index.release(name, state, live.release_id if live else None, details)
    log_live_history(lake, index, run_id, reason)
    return live


def roll_back_release(lake: Lake, index: Index, to: str | None, held_by: str, reason: str) -> IndexRelease:
    """Makes an earlier release live again and holds it, and brings the log up to date with it.

    Args:
        lake: The tables.
        index: The index.
        to: The release; None for the one before the live one.
        held_by: Who holds it from now on.
        reason: Why, in a sentence; may be empty.

    Raises:
        UnknownIndexRelease: When there is no such release, or none before the live one.
        ReleaseHeld: When somebody else holds the live release.
    """
    live = index.live()
    if live is None:
        raise UnknownIndexRelease("nothing is live yet: run `headwater run`")
    if to is None:
        earlier = [each for each in index.releases() if each.released_at < live.released_at]
        if not earlier:
            raise UnknownIndexRelease(f"{live.release_id} is the first release: there is none before it")
        to = earlier[0].release_id
    restored = index.hold(to, held_by, reason)
    said = f"rolled back to {restored.release_id}: {reason}" if reason else ""
    log_live_history(lake, index, run_id="", reason=said)
    return restored


def prune_releases(index: Index, releases_kept: int) -> bool:
    """Prunes the index to the newest `releases_kept` releases, unless readers hold locks.

    A failure is only a warning, because the live release does not change; the nightly maintenance tries
    again.

    Returns:
        Whether the index was pruned.
    """
    try:
        index.prune([(each.generation, each.epoch) for each in index.releases()[:releases_kept]])
    except (IndexConflict, DatabaseUnavailable, psycopg.OperationalError) as error:
        logger.warning("releases that are no longer kept stay until the nightly maintenance: %s", error)
        return False
    return True


@retry(retry=retry_if_exception_type(WriteConflict), stop=stop_after_attempt(5), reraise=True)
def log_live_history(lake: Lake, index: Index, run_id: str, reason: str = "") -> None:
    """Appends to `ops.releases` every change of the live release that it does not have yet.

    Releases that are no longer kept are left out: what they were made from is no longer known. `reason` is
    why the last change was made, where a person said it.

    Raises:
        WriteConflict: When other writers were faster five times in a row.
    """
    token = lake.fencing_token(RELEASES)
    for move in unlogged_moves(lake, index):
        release, verdict = move.release, last_stored_verdict(lake, move.release.release_id)
        entry = StoredRelease(
            release_id=release.release_id,
            decision=move.decision,
            reason=reason if reason and move.is_last else move.why or (verdict.reason if verdict else ""),
            generation=release.generation,
            epoch=release.epoch,
            model_digest=release.details.model_digest,
            metrics=release.details.metrics,
            versions=release.details.versions,
        )
        _append(lake, entry, run_id, token)
        token += 1


@dataclass(frozen=True)
class LiveMove:
    """A change of the live release.

    Attributes:
        release: The release that went live, or that was rolled back from.
        decision: Which of both.
        why: Why, as far as the history says it.
        is_last: Whether it is the newest change.
    """

    release: IndexRelease
    decision: Decision
    why: str
    is_last: bool


def unlogged_moves(lake: Lake, index: Index) -> list[LiveMove]:
    """Returns the changes of the live release that `ops.releases` lacks, oldest first, of releases kept."""
    rows = lake.query("select release_id, decision from releases", releases=lake.delta(RELEASES.name))
    logged = Counter((row["release_id"], row["decision"]) for row in rows.to_pylist())
    kept = {release.release_id: release for release in index.releases()}
    moves = list(_moves(index.live_history()))
    found = []
    for place, (release_id, decision, why) in enumerate(moves, 1):
        if logged[release_id, decision] > 0:
            logged[release_id, decision] -= 1
        elif release_id in kept:
            found.append(LiveMove(kept[release_id], decision, why, place == len(moves)))
    return found


def _moves(history: Sequence[LiveHistoryEntry]) -> Iterator[tuple[str, Decision, str]]:
    """Yields (release, decision, reason) for each move: a release that was live before is gone back to."""
    seen: set[str] = set()
    live = ""
    for entry in history:
        if entry.release_id not in seen:
            yield entry.release_id, "released", ""
        elif entry.release_id != live:
            yield live, "rolled_back", f"rolled back to {entry.release_id}"
        seen.add(entry.release_id)
        live = entry.release_id


def _append(lake: Lake, decision: StoredRelease, run_id: str, token: int) -> None:
    decided_at: datetime = lake.stamp(RELEASES, "decided_at")
    encoded = {
        "metrics": json.dumps(decision.metrics, sort_keys=True),
        "versions": json.dumps(decision.versions, sort_keys=True),
    }
    row = decision.model_dump() | encoded | {"decided_at": decided_at}
    lineage = Lineage(
        run_id=run_id,
        asset="ops/release",
        code_version=CODE_VERSION,
        config_digest="",
        inputs=decision.versions,
        fence=token + 1,
    )
    lake.append(RELEASES, pa.Table.from_pylist([row], RELEASES.schema), lineage)
