"""Declares the tables of the layer `ops`: what was decided and measured."""

import pyarrow as pa

from assets.columns import STAMP, Table, column

_LOGGED = (
    column(
        "move_id", "Its place in the release log; NULL from before there was one.", pa.int64(), nullable=True
    ),
    column("decided_by", "gate, or the person who decided; NULL where it is not known.", nullable=True),
    column("decided_at", "When; later than every decision before it.", STAMP),
)

RELEASES = Table(
    "ops.releases",
    pa.schema(
        [
            column("release_id", "Name of the release, such as r1.2: generation and epoch."),
            column(
                "decision",
                "approved, refused or undecided: by evaluation or a person; released, promoted or "
                "rolled_back: live from then on.",
            ),
            column("reason", "Why, in a sentence.", nullable=True),
            column("generation", "Generation of the index.", pa.int32()),
            column("epoch", "Epoch of that generation.", pa.int64()),
            column("model_digest", "Digest of its embedding model."),
            column("metrics", "JSON object: what was measured, name to number."),
            column("versions", "JSON object: table to the Delta version that the release pins."),
            column("against", "Release that was live when it was evaluated.", nullable=True),
            column("questions_digest", "Digest of the questions of its evaluation.", nullable=True),
            *_LOGGED,
        ]
    ),
    key=("release_id", "decided_at"),
    content=("release_id", "decision"),
    about="Every decision about what is served: what was measured, which versions it pins, what was decided.",
)

AUDITS = Table(
    "ops.audits",
    pa.schema(
        [
            column("table", "Table that the gate audited."),
            column("version", "Version of the table.", pa.int64()),
            column("passed", "True where no blocking expectation failed.", pa.bool_()),
            column("failed", "Names of the blocking expectations that failed.", pa.list_(pa.string())),
            column("run_id", "Dagster run of the audit."),
            column("audited_at", "When; later than every audit before it.", STAMP),
        ]
    ),
    key=("table", "version", "audited_at"),
    content=("table", "version", "passed"),
    about="Every gate's verdict on a table version; consumers read the last version that passed.",
)

DRIFT = Table(
    "ops.drift",
    pa.schema(
        [
            column("table", "Table that was compared."),
            column(
                "since",
                "Version before the batch, which is the reference; NULL for a first batch.",
                pa.int64(),
                nullable=True,
            ),
            column("until", "Version with the batch.", pa.int64()),
            column("column", "Column that was compared."),
            column("test", "Test: ks, psi or centroid."),
            column("statistic", "The test's statistic.", pa.float64()),
            column("threshold", "Value above which the batch has drifted.", pa.float64()),
            column("drifted", "True where the statistic is above the threshold.", pa.bool_()),
            column("run_id", "Dagster run of the comparison."),
            column("measured_at", "When.", STAMP),
        ]
    ),
    key=("table", "until", "column", "test"),
    content=("table", "until", "column", "test", "drifted"),
    about="Every comparison of new documents with earlier ones: column, statistic and threshold.",
)

QUARANTINE_DECISIONS = Table(
    "ops.quarantine_decisions",
    pa.schema(
        [
            column("doc_id", "Document that was decided about."),
            column(
                "decision",
                "release: it is kept whatever the damage of its text; rerun: it was parsed once more.",
            ),
            column("decided_at", "When; later than every decision before it.", STAMP),
        ]
    ),
    key=("doc_id", "decided_at"),
    content=("doc_id", "decision"),
    about="What people decided about quarantined documents: release them, or parse them once more.",
)

ANSWER_RATINGS = Table(
    "ops.answer_ratings",
    pa.schema(
        [
            column("answer_id", "Answer that was rated."),
            column("tenant", "Tenant that asked."),
            column("rating", "good or bad."),
            column("rater", "Who rated it: person, or evaluation by a known answer."),
            column("reason", "Why, in a sentence.", nullable=True),
            column("rated_at", "When; later than every rating before it. The newest counts.", STAMP),
        ]
    ),
    key=("answer_id", "rated_at"),
    content=("answer_id", "rating"),
    about="Which answers are good, by people or by known answers; training sets take the good ones.",
)

ENGINE_RELEASES = Table(
    "ops.engine_releases",
    pa.schema(
        [
            column("engine", "Name of the engine, as each of its answers has it."),
            column("generator_digest", "Digest of the engine: its model, its prompt and its parameters."),
            column(
                "decision",
                "released: measured, and it answers; held: measured, and it does not; promoted and "
                "rolled_back: a person had it answer.",
            ),
            column("reason", "Why, in a sentence."),
            column("config", "JSON object: the engine's settings, by which it can be made again."),
            column("questions", "Questions that it was measured on; NULL if it was not.", nullable=True),
            column("metrics", "JSON object: what was measured, name to number."),
            column(
                "gains",
                "JSON object: name to what it has more than the engine that answered then, with the ends of "
                "the 95% interval.",
            ),
            column("against", "Digest of the engine that it was measured beside.", nullable=True),
            column("questions_digest", "Digest of the questions that it was measured on.", nullable=True),
            column("outcome", "Verdict of the measuring: released, refused or undecided.", nullable=True),
            column(
                "questions_needed",
                "How many questions it takes to decide; NULL where it is decided.",
                pa.int64(),
                nullable=True,
            ),
            column(
                "approval_digest",
                "Digest of the engine less the embedder, without which it does not answer; NULL: unknown.",
                nullable=True,
            ),
            column(
                "retrieval_digest",
                "Digest of how passages are found for it; NULL where unknown.",
                nullable=True,
            ),
            column(
                "pair_digest",
                "Digest of both engines as they were asked, with their adapters, and how passages were "
                "found: the first verdict on it decides.",
                nullable=True,
            ),
            *_LOGGED,
        ]
    ),
    key=("generator_digest", "decided_at"),
    content=("generator_digest", "decision"),
    about="Every decision about which engine answers: what was measured, and what was decided.",
)
