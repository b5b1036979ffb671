"""A worker: prompts in, answers out, in an environment without anything else; killed, and gone on with."""

import json
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dying_worker import dying_python
from test_engines import RIVERS, WordEncoder
from tiny_decoders import byte_tokenizer, tiny_decoder
from tiny_generator import save_tiny_generator
from worker_environment import make_worker_environment

from assets.dagster.worker_launch import launch_by_pipes
from inference.engines.causal_model import CausalModel, open_causal_model
from inference.engines.generation import Generator
from inference.engines.generator import EngineConfig, build_engine, engine_name
from inference.engines.protocol import EngineError, EnginePrompt
from inference.engines.torch.decoder import build_generator
from inference.engines.torch.worker import main
from inference.engines.worker.answering import WorkerOutcome, answer_prompt_file
from inference.engines.worker.engine import WorkerEngine, Workplace
from inference.engines.worker.launch import launch_worker
from inference.engines.worker.prompt_files import (
    PROMPT_SCHEMA,
    AnswerFile,
    InvalidPromptFile,
    WorkerAnswer,
    WorkerPrompt,
    read_prompts,
    write_prompts,
)

ROOT = Path(__file__).parents[2]
MAX_TOKENS = 4


def asked(text: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}]]


PROMPTS = [WorkerPrompt(f"p{number}", asked(f"Is water wet, number {number}?")) for number in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_generator(tmp_path_factory.mktemp("generator"))


@dataclass
class Opened:
    """A model, and what generates with it."""

    model: CausalModel
    generator: Generator

    def answer(self, at: Path, max_tokens: int = MAX_TOKENS) -> WorkerOutcome:
        """Answers the file of prompts in a folder."""
        files = at / "prompts.parquet", at / "answers.parquet"
        return answer_prompt_file(*files, self.model, self.generator, max_tokens)


@pytest.fixture(scope="module")
def model(folder: Path) -> Opened:
    opened = open_causal_model(folder)
    return Opened(opened, build_generator(opened))


Answered = tuple[WorkerOutcome, list[WorkerAnswer]]


def answered(prompts: Sequence[WorkerPrompt], at: Path, model: Opened) -> Answered:
    write_prompts(at / "prompts.parquet", prompts)
    outcome = model.answer(at)
    return outcome, AnswerFile(at / "answers.parquet").rows()


def test_the_worker_runs_where_nothing_else_is_installed(folder: Path, tmp_path: Path) -> None:
    python = make_worker_environment(tmp_path / "environment")
    absent = [str(python), "-c", "import dagster, pyspark, deltalake, great_expectations"]
    assert b"No module named 'dagster'" in subprocess.run(absent, capture_output=True).stderr
    write_prompts(tmp_path / "prompts.parquet", PROMPTS)
    command = [str(python), "-m", "inference.engines.torch.worker", "prompts.parquet", "answers.parquet"]
    ran = subprocess.run(
        [*command, "--model", str(folder), "--max-tokens", "4"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "6 of 6 prompts have an answer, 0 failed; 6 answered now in" in ran.stderr
    rows = AnswerFile(tmp_path / "answers.parquet").rows()
    assert [row.prompt_id for row in rows] == [prompt.prompt_id for prompt in PROMPTS]
    assert all(row.text is not None and row.completion_tokens and row.prompt_tokens for row in rows)
    assert stat.S_IMODE((tmp_path / "answers.parquet").stat().st_mode) == 0o600


def test_a_bad_prompt_fails_alone_with_its_reason(model: Opened, tmp_path: Path) -> None:
    bad = {
        "": asked("no id"),
        "p0": asked("an id that has occurred before"),
        "no forms": [],
        "no messages": [[]],
        "no content": [[{"role": "user", "content": None}]],
        "long": asked("water " * 300),
        "very long": asked("x " * 500_000),
    }
    rows = [(each.prompt_id, each.forms) for each in PROMPTS] + list(bad.items())
    schema = pa.schema([PROMPT_SCHEMA.field(name) for name in ("prompt_id", "forms")])  # others may be absent
    table = pa.table({"prompt_id": [row[0] for row in rows], "forms": [row[1] for row in rows]}, schema)
    pq.write_table(table, tmp_path / "prompts.parquet")
    outcome = model.answer(tmp_path)
    assert (outcome.prompts, outcome.answered, outcome.failed) == (13, 6, 7)
    found = AnswerFile(tmp_path / "answers.parquet").rows()
    assert [row.prompt_id for row in found] == [row[0] for row in rows]
    faults = {row.prompt_id: row.failure for row in found if row.failure}
    assert faults.keys() == bad.keys()
    assert "256 tokens, too few" in str(faults["long"])
    assert "occurred before" in str(faults["p0"])


def test_the_first_form_that_fits_is_answered(model: Opened, tmp_path: Path) -> None:
    forms = [asked("water " * count)[0] for count in (900, 300, 20)]
    _, [row] = answered([WorkerPrompt("p", forms)], tmp_path, model)
    assert row.form == 2


def test_what_was_answered_is_not_computed_again(
    model: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, rows = answered(PROMPTS, tmp_path, model)
    again, same = answered(PROMPTS, tmp_path, model)
    assert (first.computed, again.computed, again.answered) == (6, 0, 6)
    assert same == rows
    reordered, _ = answered([WorkerPrompt("new", asked("Why?")), *reversed(PROMPTS)], tmp_path, model)
    assert (reordered.computed, reordered.answered) == (1, 7)
    (tmp_path / "answers.parquet").unlink()
    journal = tmp_path / "answers.parquet.journal.jsonl"
    file = AnswerFile(tmp_path / "answers.parquet")
    for row in rows[:3]:
        file.add(row)
    with journal.open("ab") as torn:
        torn.write(b'{"prompt_id": "p3", "prompt_sha')
    resumed, all_rows = answered(PROMPTS, tmp_path, model)
    assert (resumed.computed, all_rows) == (3, rows)
    assert not journal.exists()
    longer = model.answer(tmp_path, MAX_TOKENS + 1)
    assert longer.computed == 6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no parquet", "can not be read as a Parquet file"),
        (None, "can not be read"),
        (pa.table({"a": [1]}), "lacks"),
    ],
)
def test_a_file_of_prompts_that_can_not_be_read_is_named(
    tmp_path: Path, content: bytes | pa.Table | None, said: str, folder: Path
) -> None:
    file = tmp_path / "prompts.parquet"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        pq.write_table(content, file)
    with pytest.raises(InvalidPromptFile, match=said):
        list(read_prompts(file))
    assert main([str(file), str(tmp_path / "a.parquet"), "--model", str(folder)]) == 1


def test_no_file_but_one_of_answers_is_written_over(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prompts, other, junk = (tmp_path / name for name in ("p.parquet", "other.parquet", "junk.parquet"))
    write_prompts(prompts, PROMPTS)
    pq.write_table(pa.table({"a": [1]}), other)
    junk.write_bytes(b"words")
    for file, said in (
        (prompts, "is no file of answers"),
        (other, "is no file of"),
        (junk, "can not be read"),
    ):
        before = file.read_bytes()
        assert main([str(prompts), str(file), "--model", str(folder)]) == 1
        assert said in caplog.text
        assert file.read_bytes() == before
        caplog.clear()


@pytest.mark.parametrize(
    ("tokens", "said"), [("0", "max_tokens is 0"), ("1000000000", "0 of 6 prompts have an answer, 6 failed")]
)
def test_an_answer_of_no_or_of_a_billion_tokens_is_told_the_bound(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, tokens: str, said: str
) -> None:
    write_prompts(tmp_path / "p.parquet", PROMPTS)
    files = [str(tmp_path / "p.parquet"), str(tmp_path / "a.parquet")]
    assert main([*files, "--model", str(folder), "--max-tokens", tokens]) == int(tokens == "0")
    assert said in caplog.text


def test_an_answer_is_json_where_its_prompt_asks_for_it(tmp_path: Path) -> None:
    decoder, tokenizer = tiny_decoder(), byte_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    decoder.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    opened = open_causal_model(tmp_path / "model")
    model = Opened(opened, build_generator(opened))
    schema = '{"type": "json_schema", "json_schema": {"schema": {"enum": ["wet", "dry", null]}}}'
    prompts = [
        WorkerPrompt("plain", asked("Wet?")),
        WorkerPrompt("held", asked("Wet?"), response_format=schema),
        WorkerPrompt("none of OpenAI's", asked("Wet?"), response_format="yes"),
        WorkerPrompt("never", asked("Wet?"), response_format=schema.replace('"enum"', '"not"')),
    ]
    write_prompts(tmp_path / "prompts.parquet", prompts)
    model.answer(tmp_path, 60)
    plain, held, none, never = AnswerFile(tmp_path / "answers.parquet").rows()
    assert json.loads(str(held.text)) in ("wet", "dry", None)
    assert plain.text != held.text
    assert "response_format is none of OpenAI's" in str(none.failure)
    assert "no text can be held to the JSON schema" in str(never.failure)
    assert model.answer(tmp_path, 60).computed == 0


# The engine that has a worker answer.


def engine_with(python: Path, folder: Path, at: Path, launches: list[int]) -> WorkerEngine:
    def launch(command: Sequence[str], environment: Mapping[str, str]) -> None:
        launches.append(1)
        launch_worker(command, environment)

    return WorkerEngine(python, folder, Workplace(at, launch), max_new_tokens=MAX_TOKENS)


QUESTIONS = [EnginePrompt(f"Where does river number {number} rise?", RIVERS) for number in range(4)]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again_and_no_answer_is_lost(folder: Path, tmp_path: Path) -> None:
    plan = "add:before:1 add:after:1 finish:before:1 finish:after:1"
    whole = list(engine_with(Path(sys.executable), folder, tmp_path / "whole", []).answer_many(QUESTIONS))
    launches: list[int] = []
    engine = engine_with(dying_python(tmp_path, plan), folder, tmp_path / "killed", launches)
    [*failed] = engine.answer_many(QUESTIONS)  # killed at once, without having answered any
    assert len(launches) == 1
    assert all(each.failure and "status -9" in each.failure for each in failed)
    assert list(engine.answer_many([*QUESTIONS, QUESTIONS[0]]))[:4] == whole
    assert len(launches) == 4
    assert [each.failure for each in whole] == [None] * 4
    left = {each.name for each in (tmp_path / "killed").iterdir()}
    assert left == {"held", "packages", "answers.parquet.lock"}


@pytest.mark.slow
def test_a_batch_that_is_killed_at_ten_points_is_complete_none_is_doubled_and_the_bytes_are_equal(
    folder: Path, tmp_path: Path
) -> None:
    plan = ["hidden:before:1", "hidden:before:2", "hidden:after:4", "add:before:1", "add:after:1"]
    plan += ["hidden:before:3", "add:before:2", "add:after:2", "finish:before:1", "finish:after:1"]
    prompts = [WorkerPrompt(f"p{number}", asked("Is it wet? " * (number + 1))) for number in range(8)]
    files = tmp_path / "p.parquet", tmp_path / "killed.parquet", tmp_path / "whole.parquet"
    write_prompts(files[0], prompts)

    def run(python: Path, answers: Path) -> int:
        command = [str(python), "-m", "inference.engines.torch.worker", str(files[0]), str(answers)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*command, "--model", str(folder), "--max-tokens", "6"], env=environment, capture_output=True
        ).returncode

    python = dying_python(tmp_path, " ".join(plan))
    assert [run(python, files[1]) for _ in plan] == [-signal.SIGKILL] * 10
    assert run(python, files[1]) == 0
    computed = (tmp_path / "computed").read_text().split()
    assert sorted(computed) == [f"p{number}" for number in range(8)]
    assert run(Path(sys.executable), files[2]) == 0
    assert AnswerFile(files[1]).rows() == AnswerFile(files[2]).rows()


def test_a_worker_that_can_not_work_says_why(folder: Path, tmp_path: Path) -> None:
    none = engine_with(tmp_path / "no-python", folder, tmp_path / "a", [])
    with pytest.raises(EngineError, match="no-python can not be started"):
        none.answer(QUESTIONS[0].question, RIVERS)
    (tmp_path / "empty").mkdir()
    empty = engine_with(Path(sys.executable), tmp_path / "empty", tmp_path / "a", [])
    with pytest.raises(EngineError, match="the worker ended with status 1"):
        empty.answer(QUESTIONS[0].question, RIVERS)
    config = EngineConfig(model=folder, worker_python=Path("python"))
    assert engine_name(config) == build_engine(config, WordEncoder(), Workplace(tmp_path)).name
    with pytest.raises(ValueError, match="worker_python is set, and model"):
        EngineConfig(worker_python=Path("python"))


ORPHAN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "from inference.engines.worker import process; import time; "
                          "process.end_with_parent(); print('watching', flush=True); time.sleep(60)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_worker_ends_with_the_process_that_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    descriptor = os.pidfd_open(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert select.select([descriptor], [], [], 30)[0], "the worker goes on"
    os.close(descriptor)


@pytest.mark.slow
def test_dagster_shows_what_a_worker_logs_and_reports(folder: Path, tmp_path: Path) -> None:
    @dg.asset
    def answers(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        workplace = Workplace(tmp_path / "work", launch_by_pipes)
        engine = WorkerEngine(Path(sys.executable), folder, workplace, max_new_tokens=MAX_TOKENS)
        replies = list(engine.answer_many(QUESTIONS))
        return dg.MaterializeResult(metadata={"answers": sum(each.failure is None for each in replies)})

    with dg.instance_for_test() as instance:
        result = dg.materialize([answers], instance=instance)
        [made] = result.asset_materializations_for_node("answers")
        log = "\n".join(each.user_message for each in instance.all_logs(result.run_id))
    assert made.metadata["answers"].value == 4
    assert made.metadata["worker_answered"].value == 4
    assert str(made.metadata["worker_device"].value).startswith(("cpu", "cuda"))
    assert "4 of 4 prompts have an answer" in log
