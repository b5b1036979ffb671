"""What a training set must be before anything learns from it: checks that block."""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from assets.dedup.near_texts import near_texts
from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS, TRAINING_EXAMPLES
from assets.training_sets.rated_answers import COMPARED_TEXT
from assets.training_sets.splits import near_questions
from common.counts import counted
from inference.prompting.prompt_assembly import NOT_FOUND
from training.datasets.config import TrainingSetConfig

_FEWEST_COMPARED = 20
"""Passages of a split from which its median length says anything."""
_SHOWN_IDS = 3


@dataclass(frozen=True)
class TrainingSetFault:
    """A check that the examples of a tenant do not pass.

    Attributes:
        check: The name of the check, one of `TRAINING_SET_CHECKS`.
        reason: What was found and what helps, in a sentence.
    """

    check: str
    tenant: str
    reason: str


@dataclass(frozen=True)
class _Checked:
    """The examples of one tenant that are in its training sets, with what they are checked by.

    Attributes:
        rows: Rows of `gold.training_examples` with `text`, the positive's, and `words`, the number of them.
        texts: `split`, `text` and `example_id` of every text of every example.
        asked: `split` and `text` of every question of the tenant, also of those that are left out.
        foreign: The example_ids that name a chunk which the tenant has not.
        evaluation: The tenant's evaluation questions.
    """

    rows: pa.Table
    texts: pa.Table
    asked: pa.Table
    foreign: list[str]
    evaluation: pa.ChunkedArray
    config: TrainingSetConfig


def _minimum_size(checked: _Checked) -> str | None:
    pairs = pc.and_(
        pc.equal(checked.rows["split"], "train"), pc.equal(checked.rows["kind"], "retrieval_pair")
    )
    count = pc.sum(pairs).as_py() or 0
    if count >= checked.config.min_examples:
        return None
    return (
        f"{counted(count, 'question')} with a passage to train on, and {checked.config.min_examples} are "
        "wanted: add documents, or lower HEADWATER_RECIPE__TRAINING_SETS__MIN_EXAMPLES"
    )


def _query_kinds_balanced(checked: _Checked) -> str | None:
    pairs = checked.rows.filter(
        pc.and_(pc.equal(checked.rows["split"], "train"), pc.equal(checked.rows["kind"], "retrieval_pair"))
    )
    if not len(pairs):
        return None  # it is too small, and that is said
    # What people asked is of many kinds.
    made = pairs.filter(pc.not_equal(pairs["query_kind"], "asked"))["query_kind"].value_counts().to_pylist()
    counted = sorted(made, key=lambda each: -each["counts"])
    share = counted[0]["counts"] / len(pairs) if counted else 0.0
    if share <= checked.config.max_query_kind_share:
        return None
    return (
        f"{share:.0%} of the questions are of the kind {counted[0]['values']}, and at most "
        f"{checked.config.max_query_kind_share:.0%} may be: a model tuned on one kind gets worse at others"
    )


def _lengths_balanced(checked: _Checked) -> str | None:
    pairs = checked.rows.filter(pc.equal(checked.rows["kind"], "retrieval_pair"))
    medians = {
        row["split"]: row["median"]
        for row in Lake.query(
            "select split, median(words) as median from pairs group by split having count(*) >= $fewest",
            {"fewest": _FEWEST_COMPARED},
            pairs=pairs,
        ).to_pylist()
    }
    if not medians or max(medians.values()) <= checked.config.max_length_ratio * min(medians.values()):
        return None
    said = ", ".join(f"{median:.0f} in {split}" for split, median in sorted(medians.items()))
    return (
        f"the passages of the splits differ in length, by the median of their words: {said}; at most "
        f"{checked.config.max_length_ratio:g} times is allowed "
        "(HEADWATER_RECIPE__TRAINING_SETS__MAX_LENGTH_RATIO)"
    )


def _nothing_held_out(checked: _Checked) -> str | None:
    is_train = pc.equal(checked.texts["split"], "train")
    train, held_out = checked.texts.filter(is_train), checked.texts.filter(pc.invert(is_train))
    others = pa.chunked_array([*held_out["text"].chunks, *checked.evaluation.chunks], pa.string())
    near = near_texts(train["text"], others, checked.config.near_jaccard)
    alike = {(each["split"], each["text"]) for each in near_questions(checked.asked).to_pylist()}
    named = zip(
        *(checked.rows[each].to_pylist() for each in ("split", "question", "example_id")), strict=True
    )
    ids = {*train["example_id"].filter(pa.array(near)).to_pylist()}
    ids |= {example_id for split, question, example_id in named if (split, question) in alike}
    if not ids:
        return None
    shown = ", ".join(sorted(ids)[:_SHOWN_IDS])
    return (
        f"{counted(len(ids), 'example')} to train on within Jaccard {checked.config.near_jaccard:g} of a "
        f"held-out text or an evaluation question, or with a question that is alike, such as {shown}"
    )


def _one_tenant(checked: _Checked) -> str | None:
    if not checked.foreign:
        return None
    shown = ", ".join(checked.foreign[:_SHOWN_IDS])
    return f"{counted(len(checked.foreign), 'example')} with a chunk that the tenant has not, such as {shown}"


TRAINING_SET_CHECKS: dict[str, tuple[Callable[[_Checked], str | None], str]] = {
    "minimum_size": (_minimum_size, "A model that is tuned on a few examples learns them by heart."),
    "query_kinds_balanced": (_query_kinds_balanced, "No kind of question is nearly all of them."),
    "lengths_balanced": (_lengths_balanced, "Passages of all splits are about as long as one another."),
    "nothing_held_out": (
        _nothing_held_out,
        "No text to train on is near one of validation, of test or an evaluation question.",
    ),
    "one_tenant": (_one_tenant, "Every chunk of an example is there, and is its tenant's."),
}
"""The checks by name, each with what it is for."""

_ROWS = """
    select e.*, coalesce(e.positive, c.text) as text,
        len(regexp_split_to_array(trim(coalesce(e.positive, c.text)), '\\s+')) as words
    from examples e left join chunks c on c.chunk_id = e.chunk_ids[1]
    where e.tenant = $tenant and e.left_out is null
"""
_TEXTS = f"""
    select distinct split, text, example_id from (
        select split, example_id, question as text from rows
        union all select split, example_id, coalesce({COMPARED_TEXT}, text) from rows where text <> $refusal
        union all select split, example_id, unnest(negatives) from rows where split = 'train'
        union all
        select named.split, named.example_id, c.text
        from (select split, example_id, unnest(chunk_ids) as chunk_id from rows where split = 'train') named
        join chunks c on c.chunk_id = named.chunk_id
    ) where text is not null
"""
"""What is trained on, and what is held out: a held-out question's negatives are passages to train on, and all
refusals are one text."""
_ASKED = """
    select split, question as text from examples where tenant = $tenant and question is not null
    union select 'evaluation', question from evaluation
"""
_FOREIGN = """
    select distinct example_id from (select example_id, tenant, unnest(chunk_ids) as chunk_id from rows) named
    anti join chunks on named.chunk_id = chunks.chunk_id and named.tenant = chunks.tenant order by 1
"""


def training_set_faults(
    lake: Lake, version: int, tenant: str, evaluation_questions: pa.Table, config: TrainingSetConfig
) -> list[TrainingSetFault]:
    """Returns the checks that the examples of a tenant do not pass.

    Args:
        lake: The tables.
        version: The version of `gold.training_examples`.
        evaluation_questions: `tenant` and `question`.
        config: What a training set must be.
    """
    examples = lake.delta(TRAINING_EXAMPLES.name, version)
    chunks = lake.delta(CHUNKS.name, lake.inputs_of(TRAINING_EXAMPLES.name, version)[CHUNKS.name])
    rows = lake.query(_ROWS, {"tenant": tenant}, examples=examples, chunks=chunks)
    asked = evaluation_questions.filter(pc.equal(evaluation_questions["tenant"], tenant))
    checked = _Checked(
        rows,
        lake.query(_TEXTS, {"refusal": NOT_FOUND}, rows=rows, chunks=chunks),
        lake.query(_ASKED, {"tenant": tenant}, examples=examples, evaluation=asked),
        lake.query(_FOREIGN, rows=rows, chunks=chunks)["example_id"].to_pylist(),
        asked["question"],
        config,
    )
    found = {name: check(checked) for name, (check, _) in TRAINING_SET_CHECKS.items()}
    return [TrainingSetFault(name, tenant, reason) for name, reason in found.items() if reason]
