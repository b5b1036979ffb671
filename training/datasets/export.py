"""Writes a snapshot to a folder for other programs: JSON lines, Parquet, or Hugging Face `datasets`."""

import shutil
import tempfile
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from training.datasets.card import dataset_card
from training.datasets.training_set import TrainingSet

ExportFormat = Literal["jsonl", "parquet", "hf"]


class ExportRefused(ValueError):
    """A snapshot can not be written there; the message says why."""


def export_dataset(opened: TrainingSet, target: Path, form: ExportFormat) -> list[Path]:
    """Writes the splits of a snapshot and its card to a new folder, whole or not at all.

    Splits without examples get no file. `hf` is what `datasets.load_dataset(FOLDER)` and the hub read.

    Args:
        opened: The snapshot.
        target: The folder; it must not exist, or be empty.
        form: `jsonl`: an object a line; `parquet`; `hf`: Parquet in `data/` as the hub names it.

    Returns:
        The files, which are their owner's alone.

    Raises:
        ExportRefused: There is something at the folder, or no folder above it.
    """
    if not target.parent.is_dir():
        raise ExportRefused(f"there is no folder {target.parent}")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ExportRefused(f"{target} is there already: name a new folder, so that nothing is replaced")
    names = {
        split: f"data/{split}-00000-of-00001.parquet" if form == "hf" else f"{split}.{form}"
        for split, rows in opened.examples.items()
        if len(rows)
    }
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as scratch:
        folder = Path(scratch) / "folder"
        for split, name in names.items():
            file = folder / name
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(opened.examples[split], file)
        card = folder / "README.md"
        folder.mkdir(mode=0o700, exist_ok=True)
        card.write_text(dataset_card(opened.header, names), encoding="utf-8")
        for file in folder.rglob("*"):
            file.chmod(0o700 if file.is_dir() else 0o600)
        if target.exists():
            target.rmdir()
        shutil.move(folder, target)
    return [target / name for name in (*names.values(), "README.md")]


def _write(rows: pa.Table, file: Path) -> None:
    if file.suffix == ".parquet":
        pq.write_table(rows, file, compression="zstd")
        return
    quoted = str(file).replace("'", "''")
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        connection.execute(f"COPY rows TO '{quoted}' (FORMAT json)")
