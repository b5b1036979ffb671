"""Trains a job's model where the GPU is: `python -m training.worker FOLDER`.

Beside this package, `inference`, `quality` and `retrieval`, it needs peft, sentence-transformers, pyarrow,
pydantic and dagster-pipes, for GGUF files gguf. Killed and run again, it goes on from its last checkpoint.
"""

import argparse
import contextlib
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dagster_pipes import PipesContext

from inference.engines.digest import model_files_digest
from inference.engines.worker.process import worker_process
from training.job_folder import (
    JobOrder,
    JobResult,
    TrainingWorkerFailed,
    WorkerFolder,
    alone_in,
)

logger = logging.getLogger(__name__)

Trained = tuple[dict[str, Any], Callable[[Path], None]]
"""What became of a training, as JSON has it, and what writes the model's files into a folder."""


def _train_embedder(folder: WorkerFolder, order: JobOrder) -> Trained:
    from training.jobs.embedder import train_embedder
    from training.jobs.list_files import BASE, read_given_lists
    from training.jobs.loop import outcome_as_json
    from training.jobs.network import EmbeddingNetwork
    from training.jobs.plan import EmbedderTraining

    settings = EmbedderTraining.model_validate(order.settings)
    lists, validation = read_given_lists(folder.given)
    network = EmbeddingNetwork(folder.given / BASE)
    outcome = train_embedder(network, lists, validation, settings, folder.path, logger.info)
    return outcome_as_json(outcome), network.save


def _train_generator(folder: WorkerFolder, order: JobOrder) -> Trained:
    from training.generator.example_files import generator_outcome_as_json, read_given_examples
    from training.generator.network import AdapterNetwork
    from training.generator.training import train_generator
    from training.jobs.plan import GeneratorTraining

    settings = GeneratorTraining.model_validate(order.settings)
    splits = read_given_examples(folder.given)
    network = AdapterNetwork(Path(order.base or ""), settings)
    if network.base_digest != order.base_digest:
        raise TrainingWorkerFailed(
            f"{order.base} has the digest {network.base_digest} here, and is {order.base_digest} where the "
            "training was asked for: have both machines read the same files"
        )
    outcome = train_generator(network, splits, settings, folder.path, logger.info)
    return generator_outcome_as_json(outcome), network.save


def _train(folder: WorkerFolder) -> JobResult:
    order = folder.read_order()
    train = {"embedder": _train_embedder, "generator": _train_generator}[order.model]
    outcome, save = train(folder, order)
    shutil.rmtree(folder.model, ignore_errors=True)
    folder.model.mkdir(mode=0o700)
    save(folder.model)
    result = JobResult(outcome=outcome, model=model_files_digest(folder.model))
    folder.write_result(result)
    return result


def _report(pipes: PipesContext, result: JobResult) -> None:
    """Has the run show how far the training came, and its curves."""
    import torch

    outcome = result.outcome.get("training", result.outcome)
    standing = outcome["standing"]
    pipes.report_asset_materialization(
        {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "ended": outcome["ended"],
            "steps": standing["step"],
            "seconds": round(standing["seconds"], 1),
            "curves": {
                "raw_value": {key: standing[key] for key in ("steps", "losses", "scores")},
                "type": "json",
            },
        }
    )


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.worker",
        description="Trains the model of a job, on a GPU if there is one. `headwater train` and the assets "
        "models/embedder and models/generator start it where HEADWATER_TRAINING__WORKER_PYTHON is set.",
        epilog="example: python -m training.worker ~/.headwater/training/embedder-0123456789abcdef/worker",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder that it was given")
    parser.add_argument(
        "--end-with-parent", action="store_true", help="end when the process that started it has ended"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 where nothing can be trained; `result.json` in the folder says why."""
    given = _arguments(words)
    folder = WorkerFolder(given.folder)
    with worker_process(given.end_with_parent) as pipes:
        try:
            with alone_in(folder.path):
                for half_written in folder.path.glob(".writing-*"):  # by a worker that was killed
                    shutil.rmtree(half_written)
                result = _train(folder)
        except (ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
            # Its own errors are of these classes, and name the cure; a fault of the program is told in full.
            expected = type(error).__module__.partition(".")[0] in (
                "training",
                "inference",
                "retrieval",
                "common",
            )
            said = str(error)
            if isinstance(error, ImportError):
                said = (
                    f"{sys.executable} lacks a package ({error.__cause__ or error}): docs/training.md has all"
                )
            logger.error("%s", said, exc_info=None if expected else error)
            with contextlib.suppress(OSError):
                folder.write_result(JobResult(failure=said))
            return 1
        if pipes is not None:
            _report(pipes, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
