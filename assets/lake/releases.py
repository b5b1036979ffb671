"""Releases of the index: the gate's verdicts, making one live, and the table `ops.releases`.

The release log in PostgreSQL is the truth (`retrieval/index/release_log.py`). `ops.releases` shows its rows
about the index to SQL and to the web UI; whoever adds a row copies it, or the next run does.
"""

import getpass
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pyarrow as pa
from tenacity import retry, retry_if_exception_type, stop_after_attempt

from assets.columns import Table
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION, WriteConflict
from assets.lake.tables import RELEASES
from common.lineage import Lineage
from quality.evaluation.verdict import Verdict
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.index.release_log import GATE, NO_RECORD, Decision, ReleaseConflict, ReleaseLog
from retrieval.index.types import (
    IndexConflict,
    IndexPoint,
    IndexRecord,
    IndexRelease,
    IndexReleaseDetails,
    IndexState,
)
from retrieval.store.postgres import DatabaseUnavailable

logger = logging.getLogger(__name__)


class ReleaseNotApproved(RuntimeError):
    """A state of the index has not passed its evaluation, so it can not go live."""


def stored_release_name(point: IndexPoint) -> str:
    """Returns the name of the release of an epoch, such as `r1.2`; the same epoch has the same name."""
    return f"r{point.generation}.{point.epoch}"


def log_release_verdict(
    lake: Lake,
    index: Index,
    state: IndexState,
    verdict: Verdict,
    metrics: dict[str, float],
    run_id: str,
    since: int,
    against: str | None = None,
    questions_digest: str | None = None,
) -> None:
    """Adds the verdict on a state of the index to the release log.

    Args:
        lake: The tables.
        state: What was evaluated.
        verdict: Whether it may go live.
        metrics: The evaluation.
        run_id: The Dagster run of the gate.
        since: The newest row of the log when the evaluation began.
        against: The release that was live; None before the first.
        questions_digest: The `question_set_digest` of the questions.

    Raises:
        ReleaseConflict: Something else about the index was decided since then; nothing was written.
    """
    record = IndexRecord(
        generation=state.generation,
        epoch=state.epoch,
        model_digest=state.model_digest,
        metrics=metrics,
        versions=state.lineage.inputs,
        against=against,
        questions_digest=questions_digest,
    )
    decision = "approved" if verdict.released else verdict.outcome
    name, said = stored_release_name(state), record.model_dump_json()
    index.log.add_verdict(Decision("index", "", decision, name, verdict.reason, GATE, said), since)
    project_releases(lake, index.log, run_id)


def approve_release(lake: Lake, index: Index, release_id: str, because: str) -> Decision:
    """Has a person approve a state of the index that its evaluation did not decide about.

    Raises:
        ReleaseNotApproved: It was not evaluated, or was refused, or no reason is given.
        ReleaseConflict: Something else was decided meanwhile.
    """
    since = index.log.newest_move_id()
    verdict = index.log.newest_verdict("index", release_id)
    if not because.strip():
        raise ReleaseNotApproved("the reason is empty: say with --because why it is to go live")
    if verdict is None or verdict.decision == "refused":
        why = f"it was refused: {verdict.reason}" if verdict else "it was not evaluated"
        raise ReleaseNotApproved(f"release {release_id} can not be approved: {why}")
    approved = Decision(
        "index", "", "approved", release_id, because.strip(), getpass.getuser(), verdict.record
    )
    approved = index.log.add_verdict(approved, since)
    project_releases(lake, index.log)
    return approved


def make_release_live(
    lake: Lake,
    index: Index,
    state: IndexState,
    run_id: str,
    model: EmbeddingModel,
    expected: str | None = None,
    reason: str = "",
    decided_by: str | None = None,
) -> IndexRelease:
    """Makes an approved state of the index live, and brings `ops.releases` up to date.

    A state from which a user rolled back does not go live again until the index changes, and none goes live
    while somebody holds what is live.

    Args:
        lake: The tables.
        run_id: The run that makes it live; empty for none.
        model: The embedding model of its vectors.
        expected: The release that must be live; None for any.
        reason: Why, if it is more than that its evaluation approved it.
        decided_by: Who decided it; who approved it if None.

    Returns:
        The release that is live now.

    Raises:
        ReleaseNotApproved: When the state was refused, not decided, or not evaluated.
        ReleaseConflict: When another release went live at the same time.
        ReleaseHeld: When somebody began to hold what is live at the same time.
    """
    name, live = stored_release_name(state), index.live()
    verdict = index.log.newest_verdict("index", name)
    if verdict is None or verdict.decision != "approved":
        why = "it was not evaluated"
        if verdict is not None and verdict.decision == "refused":
            why = f"it was refused: {verdict.reason}"
        elif verdict is not None:
            why = f"{verdict.reason}; `headwater releases approve {name} --because …` has a person decide"
        raise ReleaseNotApproved(f"release {name} can not go live: {why}; what was live stays live")
    if expected is not None and (live is None or live.release_id != expected):
        raise ReleaseConflict(
            f"{live.release_id if live else 'nothing'} is live, not {expected!r}, which {name!r} was judged "
            "against; judge it again"
        )
    hold = index.live_hold()
    if hold is not None and live is not None and hold.release_id != name and expected is None:
        logger.warning("%s is held back: %s; `headwater hold --off` ends that", name, hold)
    elif live is None or all(entry.release_id != name for entry in index.live_history()):
        details = IndexReleaseDetails(
            metrics=IndexRecord.model_validate_json(verdict.record).metrics,
            versions=state.lineage.inputs,
            model_digest=state.model_digest,
            embedder=model.config,
            run_id=run_id,
        )
        live = index.release(
            name,
            state,
            live.release_id if live else None,
            details,
            reason or verdict.reason,
            decided_by or verdict.decided_by,
        )
    project_releases(lake, index.log, run_id)
    return live


def roll_back_release(lake: Lake, index: Index, to: str | None, held_by: str, reason: str) -> IndexRelease:
    """Makes an earlier release live again and holds it, and brings `ops.releases` up to date.

    Args:
        lake: The tables.
        to: The release; None for the one before the live one.
        held_by: Who holds it from now on.
        reason: Why, in a sentence; may be empty.

    Raises:
        UnknownIndexRelease: When there is no such release, or none before the live one.
        ReleaseHeld: When somebody else holds what is live.
    """
    restored = index.hold(to, held_by, reason, back=True)
    project_releases(lake, index.log)
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


def missing_rows(lake: Lake, table: Table, decisions: Sequence[Decision]) -> list[Decision]:
    """Returns the decisions that a table lacks, oldest first; those from before the log are not wanted."""
    known = set(lake.query("select decided_at from t", t=lake.delta(table.name))["decided_at"].to_pylist())
    return [each for each in decisions if each.record != NO_RECORD and each.at not in known]


@retry(retry=retry_if_exception_type(WriteConflict), stop=stop_after_attempt(5), reraise=True)
def append_missing(
    lake: Lake,
    table: Table,
    decisions: Sequence[Decision],
    columns: Callable[[Decision], dict[str, Any]],
    lineage: Callable[[Decision], Lineage],
) -> int:
    """Appends to a table of decisions those that it lacks.

    Args:
        decisions: The decisions that belong there, oldest first.
        columns: Returns the table's own columns, without `decision_columns`.
        lineage: Returns the lineage of a commit whose last row is a decision; the fence is set here.

    Returns:
        How many they were.

    Raises:
        WriteConflict: When other writers were faster five times in a row.
    """
    token = lake.fencing_token(table)
    missing = missing_rows(lake, table, decisions)
    if missing:
        rows = [columns(each) | decision_columns(each) for each in missing]
        fenced = lineage(missing[-1]).model_copy(update={"fence": token + 1})
        lake.append(table, pa.Table.from_pylist(rows, table.schema), fenced)
    return len(missing)


def project_releases(lake: Lake, log: ReleaseLog, run_id: str = "") -> int:
    """Appends to `ops.releases` the rows of the release log about the index; see `append_missing`."""

    def columns(decision: Decision) -> dict[str, Any]:
        record = IndexRecord.model_validate_json(decision.record)
        return {"release_id": decision.digest} | index_columns(record)

    def lineage(newest: Decision) -> Lineage:
        return Lineage(
            run_id=run_id,
            asset="ops/release",
            code_version=CODE_VERSION,
            config_digest="",
            inputs=IndexRecord.model_validate_json(newest.record).versions,
        )

    return append_missing(lake, RELEASES, log.decisions("index"), columns, lineage)


def decision_columns(decision: Decision) -> dict[str, Any]:
    """Returns the columns that each table of decisions has."""
    return {
        "move_id": decision.move_id,
        "decision": decision.decision,
        "reason": decision.reason,
        "decided_by": decision.decided_by,
        "decided_at": decision.at,
    }


def index_columns(record: IndexRecord) -> dict[str, Any]:
    """Returns the columns of `ops.releases` about a state of the index."""
    return {
        "generation": record.generation,
        "epoch": record.epoch,
        "model_digest": record.model_digest,
        "metrics": json.dumps(record.metrics, sort_keys=True),
        "versions": json.dumps(record.versions, sort_keys=True),
        "against": record.against,
        "questions_digest": record.questions_digest,
    }
