"""Answers questions by a worker: a process with a Python of its own, which needs no Spark."""

import fcntl
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import common
import inference
import retrieval
from inference.engines.digest import ModelFiles, engine_digest, model_name
from inference.engines.generation import Quantization
from inference.engines.protocol import (
    Adapter,
    AdapterChoice,
    EngineError,
    EnginePrompt,
    EngineReply,
    answer_one,
)
from inference.engines.worker.launch import Launch, launch_worker, link_packages
from inference.engines.worker.prompt_files import AnswerFile, WorkerAnswer, WorkerPrompt, write_prompts
from inference.prompting.generated_reply import generated_draft
from inference.prompting.prompt_assembly import (
    PROMPT_INSTRUCTIONS,
    PassageCounts,
    PromptConfig,
    PromptForm,
    count_passages,
    prompt_forms,
)
from inference.prompting.types import Draft, Passage, TokenUsage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    """Where workers work.

    Attributes:
        folder: Where the files between them and us are, on a local disk.
        launch: What runs them.
    """

    folder: Path
    launch: Launch = launch_worker


class WorkerEngine:
    """An engine that has a worker generate the answers to many prompts at once (`inference.engines.torch`).

    Prompts and answers go through files in a folder of its own, which holds them only until the answers were
    taken: passages are not for keeping. Answers that a worker had given when it, or this process, was killed
    are taken by the next call that has the same prompts.
    """

    def __init__(
        self,
        python: Path,
        model: Path,
        workplace: Workplace,
        max_new_tokens: int = 300,
        context: PromptConfig | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        """Describes the worker; nothing is started yet.

        Args:
            python: The Python of an environment with what a worker needs.
            model: The model's folder, or a `.gguf` file.
            workplace: Where it works.
            max_new_tokens: The length limit of an answer.
            context: Which passages are shown to the model, and in which order.
            quantization: What products with weights are computed in; None for the type of the weights.

        Raises:
            EngineError: There is no model at the path.
        """
        if not model.exists():
            raise EngineError(f"no model at {model}: name a model's folder or a .gguf file")
        self._python, self._model = python.absolute(), model.absolute()
        self._folder, self._launch = workplace.folder, workplace.launch
        self._max_new_tokens = max_new_tokens
        self._context = context or PromptConfig()
        self._quantization = quantization
        self.name = f"worker:{model_name(model)}"

    @cached_property
    def _files(self) -> ModelFiles:
        return ModelFiles(self._model)

    @cached_property
    def digest(self) -> str:
        """A digest of the model's files, the prompt and the parameters.

        It is needed before a worker has said what it computes on, so it leaves the numeric form out.
        """
        model = self._files.digest
        form = ["worker", self._quantization] if self._quantization else ["worker"]
        return engine_digest(*form, model, PROMPT_INSTRUCTIONS, self._context, self._max_new_tokens)

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Has a worker generate one answer; it loads its model for it.

        Raises:
            EngineError: The worker fails, or fails at this prompt.
        """
        return answer_one(self, question, passages)

    def answer_many(self, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        """Yields the replies when the worker has ended; a killed one is started again while it gets on.

        Raises:
            EngineChanged: The model's files were replaced since their digest was taken.
        """
        if not prompts:
            return
        self._files.require_unchanged()
        with self._held():
            counts = count_passages((each.sharing_key, each.passages) for each in prompts)
            asked = [
                _Asked.of(each, self._context, counts.get(each.sharing_key or ""), self.digest)
                for each in prompts
            ]
            answers = self._answers({each.prompt_id: each for each in asked if each.forms})
            self._files.require_unchanged()
            for index, each in enumerate(asked):
                yield self._reply(index, each, answers.get(each.prompt_id))
            self._file.remove()
            self._prompts.unlink()

    @property
    def _prompts(self) -> Path:
        return self._folder / "prompts.parquet"

    @cached_property
    def _file(self) -> AnswerFile:
        return AnswerFile(self._folder / "answers.parquet")

    def _answers(self, asked: Mapping[str, "_Asked"]) -> dict[str | None, WorkerAnswer]:
        """Returns a worker's answers, by the prompts' ids."""
        prompts = [
            WorkerPrompt(
                name,
                [form.messages for form in each.forms],
                each.sharing_key,
                adapter=str(each.adapter.folder) if each.adapter else None,
            )
            for name, each in asked.items()
        ]
        write_prompts(self._prompts, prompts)
        command = [
            *(str(self._python), "-m", "inference.engines.torch.worker"),
            *(str(self._prompts), str(self._file.path), "--model", str(self._model)),
            *("--max-tokens", str(self._max_new_tokens), "--end-with-parent"),
            *(("--quantization", self._quantization) if self._quantization else ()),
        ]
        packages = link_packages(self._folder / "packages", (inference, retrieval, common))
        fault, before = "", -1
        while len(given := self._file.answered()) > before:
            before = len(given)
            try:
                self._launch(command, {"PYTHONPATH": str(packages)})
            except EngineError as error:
                fault = str(error)
            else:
                return {each.prompt_id: each for each in self._file.rows()}
        failed = {name: WorkerAnswer(name, failure=fault) for name in asked}
        return failed | {each.prompt_id: each for each in given.values()}

    def _reply(self, index: int, asked: "_Asked", answer: WorkerAnswer | None) -> EngineReply:
        if answer is None:
            failure = (
                f"no passage fits into {self._context.max_tokens} tokens: set "
                "HEADWATER_GENERATOR__CONTEXT__MAX_TOKENS higher"
            )
        elif answer.failure is not None or answer.text is None or answer.form is None:
            failure = answer.failure or "the worker wrote no text"
        else:
            usage = TokenUsage(answer.prompt_tokens or 0, answer.completion_tokens or 0)
            form = asked.forms[answer.form]
            draft = generated_draft(answer.text, answer.finish_reason, form, asked.passages, usage)
            return EngineReply(index, draft, self.name, self.digest, adapted=asked.adapted)
        return EngineReply.failed(index, self, failure)

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Holds the folder, and with it the device: another process waits."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "held").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another process has a worker answer questions: waiting until it has ended")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@dataclass(frozen=True)
class _Asked:
    """A prompt with its forms. Equal prompts have equal ids, in another call too."""

    prompt_id: str
    forms: Sequence[PromptForm]
    passages: Sequence[Passage]
    sharing_key: str | None
    adapted: AdapterChoice | None

    @property
    def adapter(self) -> Adapter | None:
        return self.adapted.adapter if self.adapted else None

    @classmethod
    def of(
        cls, prompt: EnginePrompt, context: PromptConfig, counts: PassageCounts | None, digest: str
    ) -> "_Asked":
        forms = list(prompt_forms(prompt.question, prompt.passages, context, counts))
        if prompt.adapted and prompt.adapted.adapter:
            digest = f"{digest} {prompt.adapted.adapter.digest}"
        prompt_id = WorkerPrompt("", [form.messages for form in forms]).sha256(digest)
        return cls(prompt_id, forms, prompt.passages, prompt.sharing_key, prompt.adapted)
