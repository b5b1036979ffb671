"""How jobs ended, and their curves, as kept in their folders."""

from pathlib import Path

from pydantic import BaseModel

from common.atomic_files import atomic_file
from training.jobs.checkpoints import Standing

_OUTCOME = "outcome.json"


class JobOutcome(BaseModel, frozen=True):
    """How a job ended.

    Attributes:
        address: The version that it made.
        standing: How far it came, with its curves.
        ended: Why it ended.
        figure: The name of the validations' figure.
    """

    address: str
    standing: Standing
    ended: str
    figure: str = "validation_ndcg@10"


def write_job_outcome(folder: Path, outcome: JobOutcome) -> None:
    """Keeps how a job ended in its folder."""
    with atomic_file(folder / _OUTCOME) as fresh:
        fresh.write_text(outcome.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_job_outcome(folder: Path) -> JobOutcome | None:
    """Returns how a job ended, or None if it has not."""
    file = folder / _OUTCOME
    return JobOutcome.model_validate_json(file.read_bytes()) if file.is_file() else None


def training_curves(jobs: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Returns the loss and the validation of each job that ended, by step.

    Args:
        jobs: The folder of jobs.

    Returns:
        By the job's id and the figure's name, pairs of step and value.
    """
    curves = {}
    for folder in sorted(path for path in jobs.glob("*") if path.is_dir()):
        outcome = read_job_outcome(folder)
        if outcome:
            standing = outcome.standing
            curves[folder.name] = {
                "loss": list(zip(standing.steps, standing.losses, strict=True)),
                outcome.figure: list(zip(standing.steps, standing.scores, strict=True)),
            }
    return curves
