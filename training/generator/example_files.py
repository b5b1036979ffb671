"""What a worker is given to train an adapter, and what it says became of it: Parquet, and plain values."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.datasets.training_set import SPLITS
from training.generator.examples import WrittenExample, WrittenSplits
from training.generator.training import GeneratorOutcome
from training.jobs.loop import outcome_as_json, outcome_of_json

_EXAMPLES = "examples.parquet"
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("name", pa.string()),
        ("question", pa.string()),
        ("forms", pa.list_(pa.list_(_MESSAGE))),
        ("responses", pa.list_(pa.string())),
    ]
)


def give_examples(folder: Path, splits: WrittenSplits) -> None:
    """Writes the examples into a folder."""
    rows = [{"split": split, **asdict(example)} for split in SPLITS for example in getattr(splits, split)]
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), folder / _EXAMPLES)


def read_given_examples(folder: Path) -> WrittenSplits:
    """Returns the examples of a folder, and removes their file: texts are not kept."""
    found: dict[str, list[WrittenExample]] = {split: [] for split in SPLITS}
    for row in pq.read_table(folder / _EXAMPLES).to_pylist():
        found[row.pop("split")].append(WrittenExample(**row))
    (folder / _EXAMPLES).unlink()
    return WrittenSplits(**found)


def generator_outcome_as_json(outcome: GeneratorOutcome) -> dict[str, Any]:
    """Returns what became of a training as JSON has it."""
    losses = {name: getattr(outcome, name).tolist() for name in ("before", "after")}
    return vars(outcome) | losses | {"training": outcome_as_json(outcome.training)}


def generator_outcome_of_json(said: dict[str, Any]) -> GeneratorOutcome:
    """Returns what became of a training."""
    losses = {name: np.array(said[name], np.float64) for name in ("before", "after")}
    return GeneratorOutcome(**said | losses | {"training": outcome_of_json(said["training"])})
