"""Charts of a release: its metrics, those of the releases before it, and what its tables hold."""

import json
import math
from collections.abc import Mapping

from dagster import MetadataValue

from assets.dagster.charts import bar_chart, chart_markdown, line_chart
from assets.dagster.metadata import document_funnel
from assets.lake.lake import Lake
from assets.lake.tables import RELEASES
from common.counts import counted
from quality.evaluation.release_gate import NDCG

_MODES = {"fused": "", "vector": "/vector", "lexical": "/lexical"}
_MEASURES = (NDCG, "recall@10", "rr@10")
_BEFORE = "/before"
"""Behind the name of a metric: that of the release that was live, on the candidate's questions."""
_SHOWN_RELEASES = 50

_DOCUMENTS = {
    "kept": "documents",
    "exact duplicates": "exact_duplicates",
    "near duplicates": "near_duplicates",
    "quarantined": "quarantined",
}
"""What became of the documents that were read, by its name in the funnel."""
_ROWS = {"documents kept": "documents", "chunks": "chunks", "vectors": "embedded"}
"""What is made of them."""


def metrics_of_live(live: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics of the live release that a candidate's are drawn beside.

    Args:
        live: The metrics of the release that is live, on the same questions as the candidate's.
    """
    return {NDCG + mode + _BEFORE: live[NDCG + mode] for mode in _MODES.values() if NDCG + mode in live}


def dagster_evaluation_chart(figures: Mapping[str, float]) -> MetadataValue:
    """Returns a bar chart of each search mode's metrics on the evaluation questions."""
    bars = {
        f"{measure}, {mode}": figures[measure + suffix]
        for measure in _MEASURES
        for mode, suffix in _MODES.items()
        if measure + suffix in figures
    }
    return MetadataValue.md(chart_markdown(bar_chart(counted(figures.get("questions", 0), "question"), bars)))


def dagster_release_charts(lake: Lake) -> MetadataValue:
    """Returns charts of what became of the documents, of the rows per stage, and of releases' metrics.

    Releases are often measured on different questions, since some are made from the documents. So a line
    leads to each from the release before it as that was on the same questions, and not from the point drawn
    for that.
    """
    rows = lake.query(
        f"""
        select release_id, arg_max(metrics, decided_at) as metrics from releases
        where decision not in ('refused', 'undecided')
        group by 1 order by min(decided_at) desc limit {_SHOWN_RELEASES}
        """,
        releases=lake.delta(RELEASES.name),
    ).to_pylist()[::-1]
    measured = [json.loads(row["metrics"]) for row in rows]
    asked = [
        f"{row['release_id']}\n{counted(each.get('questions', 0), 'question')}"
        for row, each in zip(rows, measured, strict=True)
    ]

    def drawn(behind: str) -> dict[str, list[float]]:
        return {
            label: [each.get(NDCG + mode + behind, math.nan) for each in measured]
            for label, mode in _MODES.items()
        }

    funnel = document_funnel(lake)
    charts = (
        bar_chart(
            f"what became of {counted(funnel['raw'], 'document')}",
            {name: funnel[of] for name, of in _DOCUMENTS.items()},
        ),
        bar_chart("rows per stage", {name: funnel[of] for name, of in _ROWS.items()}),
        line_chart(
            "nDCG@10 of each release; a line joins two on the same questions",
            asked,
            drawn(""),
            before=drawn(_BEFORE),
            ends=(0, 1),
        ),
    )
    return MetadataValue.md("\n\n".join(map(chart_markdown, charts)))
