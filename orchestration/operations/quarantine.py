"""The quarantine as a person sees it: which documents are kept out, why, and what helps."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.lake.lake import Lake
from assets.lake.quarantine_decisions import QuarantineDecision, record_quarantine_decisions
from assets.lake.tables import DOCUMENTS, QUARANTINE, RAW_DOCUMENTS
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.runs import RunFailed, execute_run
from orchestration.quarantine.cures import QuarantineReason, quarantine_cure
from orchestration.settings import Settings, open_configured_lake

_RELEASABLE = "damage"
"""The stage of documents that have a text: a person may think better of it than the thresholds do."""


class UnknownQuarantinedDocument(LookupError):
    """No quarantined document, or more than one, has this id or URI."""


class NothingToRelease(ValueError):
    """The document has no text that could be kept."""


@dataclass(frozen=True)
class QuarantinedDocument:
    """A document that is kept out.

    Attributes:
        doc_id: Its id.
        uri: Where it is.
        stage: The stage that refused it: `read`, `extract` or `damage`.
        reason: What was found, in a sentence.
        cure: What brings it in.
    """

    doc_id: str
    uri: str
    stage: str
    reason: str
    cure: str


@dataclass(frozen=True)
class QuarantineRerun:
    """The outcome of parsing quarantined documents once more.

    Attributes:
        kept: Those that came in.
        quarantined: Those that did not, with the reasons as they are now.
    """

    kept: list[QuarantinedDocument]
    quarantined: list[QuarantinedDocument]


def list_quarantined(settings: Settings) -> list[QuarantinedDocument]:
    """Returns every quarantined document, by stage, expectation and URI."""
    return _quarantined(settings, "true", [])


def quarantined_by_run(settings: Settings, run_id: str) -> list[QuarantinedDocument]:
    """Returns the documents that a run quarantined, as `list_quarantined` does."""
    return _quarantined(settings, "OpenLineage_RunId = ?", [run_id])


def count_kept_out(lake: Lake) -> tuple[int, int]:
    """Returns how many documents are quarantined, and how many others are not fit for training."""
    counts = lake.query(
        """
        select (select count(*) from quarantine) as quarantined,
               (select count(*) from documents where not training_fit) as unfit
        """,
        quarantine=lake.delta(QUARANTINE.name),
        documents=lake.delta(DOCUMENTS.name),
    ).to_pylist()[0]
    return counts["quarantined"], counts["unfit"]


def find_quarantined(settings: Settings, names: Sequence[str]) -> list[QuarantinedDocument]:
    """Returns the quarantined documents that have one of some ids, beginnings of ids, URIs or local paths.

    A URI names the document in every source that has it.

    Raises:
        UnknownQuarantinedDocument: A name is that of none, or the beginning of several ids.
    """
    found: dict[str, QuarantinedDocument] = {}
    for name in names:
        path = Path(name).absolute().as_uri() if "://" not in name else name
        named = _quarantined(settings, "uri in (?, ?) or doc_id = ?", [name, path, name])
        if not named and name:
            named = _quarantined(settings, "starts_with(doc_id, ?)", [name.lower()])
            if len(named) > 1:
                ids = ", ".join(each.doc_id[: max(12, len(name) + 2)] for each in named[:5])
                raise UnknownQuarantinedDocument(f"{name} begins {len(named)} ids: {ids} …; give more of it")
        if not named:
            raise UnknownQuarantinedDocument(
                f"no quarantined document has the id or URI {name}: `headwater quarantine list` has them all"
            )
        found |= {each.doc_id: each for each in named}
    return list(found.values())


def show_quarantined(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Returns all that is known of the quarantined documents of a name: see `find_quarantined`."""
    documents = {each.doc_id: each for each in find_quarantined(settings, [name])}
    lake = open_configured_lake(settings)
    rows = lake.query(
        """
        select q.doc_id, q.uri, q.tenant, q.source, r.title, r.media_type, r.size_bytes, r.content_sha256,
               r.fetched_at, q.stage, q.expectation, q.reason
        from quarantine q left join raw r on r.doc_id = q.doc_id where list_contains($ids, q.doc_id)
        qualify row_number() over (partition by q.doc_id order by r.revision desc) = 1 order by q.uri
        """,
        {"ids": list(documents)},
        quarantine=lake.delta(QUARANTINE.name),
        raw=lake.delta(RAW_DOCUMENTS.name),
    ).to_pylist()
    return [row | {"cure": documents[row["doc_id"]].cure} for row in rows]


def release_quarantined(
    settings: Settings, names: Sequence[str], progress: Callable[[str], None]
) -> list[QuarantinedDocument]:
    """Releases documents from the quarantine, and brings everything up to date with them.

    A released document is kept as long as it has a text, whatever becomes of that text, over every re-ingest
    and rebuild. Whether it is fit for training is another question.

    Returns:
        The documents that were released, as they stood in the quarantine.

    Raises:
        UnknownQuarantinedDocument: As in `find_quarantined`; nothing was released.
        NothingToRelease: One of them has no text; nothing was released.
        RunFailed: The run after the release failed; the decision stays.
    """
    documents = find_quarantined(settings, names)
    for each in documents:
        if each.stage != _RELEASABLE:
            raise NothingToRelease(f"{each.uri} has no text to keep. {each.reason} What helps: {each.cure}")
    still = {each.doc_id: each for each in _decide(settings, documents, "release", progress)}
    if still:
        first = next(iter(still.values()))
        raise NothingToRelease(f"{first.uri} has no text any more. {first.reason} What helps: {first.cure}")
    return documents


def rerun_quarantined(
    settings: Settings, names: Sequence[str], progress: Callable[[str], None]
) -> QuarantineRerun:
    """Parses quarantined documents once more, and brings everything up to date with those that come in.

    Args:
        settings: The settings of the state folder.
        names: The documents, as in `find_quarantined`; all where there are none.
        progress: Called with a line for each step that begins or ends.

    Raises:
        UnknownQuarantinedDocument: As in `find_quarantined`; nothing was done.
        RunFailed: The run failed.
    """
    documents = find_quarantined(settings, names) if names else list_quarantined(settings)
    if not documents:
        return QuarantineRerun([], [])
    still = _decide(settings, documents, "rerun", progress)
    left = {each.doc_id for each in still}
    return QuarantineRerun([each for each in documents if each.doc_id not in left], still)


def _decide(
    settings: Settings,
    documents: Collection[QuarantinedDocument],
    decision: QuarantineDecision,
    progress: Callable[[str], None],
) -> list[QuarantinedDocument]:
    """Records a decision and runs; returns those of the documents that are quarantined all the same."""
    lake = open_configured_lake(settings)
    ids = {each.doc_id for each in documents}
    record_quarantine_decisions(lake, sorted(ids), decision)
    outcome = execute_run(settings, None, progress)
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))
    return [each for each in list_quarantined(settings) if each.doc_id in ids]


def _quarantined(settings: Settings, condition: str, values: list[Any]) -> list[QuarantinedDocument]:
    kinds = {source.name: source.kind for source in SourceRegistry(settings.sources_file).list()}
    lake = open_configured_lake(settings)
    rows = lake.query(
        f"""
        select doc_id, uri, source, stage, expectation, reason from quarantine where {condition}
        order by stage, expectation, uri
        """,
        values,
        quarantine=lake.delta(QUARANTINE.name),
    )
    found = []
    for row in rows.to_pylist():
        stage = row.pop("stage")
        reason = QuarantineReason(**row, kind=kinds.get(row["source"]))
        found.append(
            QuarantinedDocument(reason.doc_id, reason.uri, stage, reason.reason, quarantine_cure(reason))
        )
    return found
