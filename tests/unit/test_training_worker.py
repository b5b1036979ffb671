"""What goes wrong between a training and its worker is told, and what is not whole is not taken."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from tiny_generator import save_tiny_generator

from inference.engines.digest import model_files_digest
from inference.engines.protocol import EngineError
from training import worker
from training.generator.example_files import generator_outcome_of_json, give_examples
from training.generator.examples import WrittenExample, WrittenSplits
from training.generator.job import run_generator_job, written_by_file
from training.job_folder import TrainedByWorker, TrainingWorker, TrainingWorkerFailed, WorkerFolder
from training.jobs.network import UnknownBase
from training.jobs.plan import GeneratorTraining
from training.place import TrainingPlace

TRAINING = GeneratorTraining(minutes=5, rank=2, max_tokens=64, batch_examples=4, validations=1, most_passes=1)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_generator(tmp_path_factory.mktemp("base"))


def examples(count: int, first: int = 0) -> list[WrittenExample]:
    return [
        WrittenExample(
            f"e{number}",
            f"Say {number}.",
            [[{"role": "user", "content": f"Say {number}."}]],
            [f"It is {number}."],
        )
        for number in range(first, first + count)
    ]


def trained(
    job: Path, base: Path, meddle: Callable[[WorkerFolder, str], None], count: int = 8
) -> TrainedByWorker:
    """Has a worker train that runs in this process, with something happening before it and after it."""

    def launch(command: Sequence[str], environment: Mapping[str, str]) -> None:
        folder = WorkerFolder(Path(command[3]))
        meddle(folder, "before")
        if worker.main([command[3]]):
            raise EngineError("the worker ended with status 1: its log above says why")
        meddle(folder, "after")

    job.mkdir()
    give = partial(give_examples, splits=WrittenSplits(examples(count), examples(4, 50), examples(4, 90)))
    return TrainingWorker(Path("python"), launch).train(
        job, "generator", TRAINING, give, (base, model_files_digest(base))
    )


def nothing_happens(folder: WorkerFolder, when: str) -> None:
    pass


def test_what_a_worker_made_is_taken_only_whole(tiny_base: Path, tmp_path: Path) -> None:
    def cut_off(folder: WorkerFolder, when: str) -> None:
        if when == "after":
            weights = folder.model / "adapter_model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1])

    whole = trained(tmp_path / "whole", tiny_base, nothing_happens)
    whole.write(tmp_path / "model")
    outcome = generator_outcome_of_json(whole.outcome)
    assert (outcome.examples, outcome.validation, len(outcome.after)) == (8, 4, 4)
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()
    broken = trained(tmp_path / "broken", tiny_base, cut_off)
    with pytest.raises(TrainingWorkerFailed, match="is not what the worker wrote there"):
        broken.write(tmp_path / "broken" / "model")


def other_base(folder: WorkerFolder, when: str) -> None:
    folder.write_order(folder.read_order().model_copy(update={"base_digest": "another"}))


def lost_examples(folder: WorkerFolder, when: str) -> None:
    (folder.given / "examples.parquet").unlink()


@pytest.mark.parametrize(
    ("meddle", "count", "said"),
    [
        (nothing_happens, 3, "the worker: 3 examples to train on, and 8 are needed at least"),
        (other_base, 8, "and is another where the training was asked for"),
        (lost_examples, 8, "does not hold what was written there"),
    ],
)
def test_why_a_worker_trains_nothing_is_told(
    tiny_base: Path, tmp_path: Path, meddle: Callable[[WorkerFolder, str], None], count: int, said: str
) -> None:
    with pytest.raises(TrainingWorkerFailed, match=said):
        trained(tmp_path / "job", tiny_base, meddle, count)
    assert not (tmp_path / "job" / "worker" / "given").exists()  # texts are not kept


def test_a_worker_without_a_program_and_a_base_that_is_none_are_told_before(
    tiny_base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"prompt": "Is it wet?", "response": "Yes."}\n')
    datasets, jobs, models = (tmp_path / name for name in ("datasets", "jobs", "models"))
    place = TrainingPlace(datasets, jobs, models, worker=TrainingWorker(tmp_path / "no-python"))

    def train(base: Path) -> None:
        run_generator_job(place, written_by_file(file, None), base, TRAINING, "1", print)

    with pytest.raises(TrainingWorkerFailed, match="no-python can not be started"):
        train(tiny_base)
    with pytest.raises(UnknownBase, match="no model at"):
        train(tmp_path / "none")
