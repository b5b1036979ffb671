"""Answers a Parquet file of prompts where the GPU is: `python -m inference.engines.torch.worker`.

Beside this package and `retrieval`, it needs torch, transformers, safetensors, pyarrow and dagster-pipes, for
GGUF files gguf and accelerate, and for a response_format llguidance. Killed and run again, it computes only
what is missing.
"""

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from inference.engines.digest import adapter_digest, model_files_digest
from inference.engines.generation import (
    Generation,
    GenerationRequest,
    Generator,
    InvalidSamplingOption,
    Quantization,
    SamplingOptions,
)
from inference.engines.protocol import EngineError
from inference.engines.torch.prompt_files import (
    AnswerFile,
    InvalidPromptFile,
    WorkerAnswer,
    WorkerPrompt,
    read_prompts,
)
from retrieval.atomic_files import PRIVATE_UMASK
from retrieval.progress import Progress

if TYPE_CHECKING:
    from inference.engines.causal_model import CausalModel

logger = logging.getLogger(__name__)

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_WATCHED_EACH_S = 0.5


@dataclass(frozen=True)
class WorkerOutcome:
    """What became of a file of prompts.

    Attributes:
        prompts: How many it has.
        answered: How many of them have an answer now.
        computed: How many of these this run computed; the others were there.
        failed: How many have a reason instead.
        seconds: How long it took, from the first prompt on.
        numeric_form: The kind of device, and the type of the weights on it.
    """

    prompts: int
    answered: int
    computed: int
    failed: int
    seconds: float
    numeric_form: str

    @property
    def prompts_per_s(self) -> float:
        """Prompts that this run answered, per second."""
        return self.computed / self.seconds if self.seconds else 0.0


def answer_prompt_file(
    prompts_file: Path, answers_file: Path, model: "CausalModel", generator: Generator, max_tokens: int
) -> WorkerOutcome:
    """Answers the prompts of a file that have no answer yet, and writes all answers in the prompts' order.

    Args:
        prompts_file: A Parquet file of `PROMPT_SCHEMA`.
        answers_file: The Parquet file of `ANSWER_SCHEMA` to write; answers in it or in its journal stay.
        model: The model.
        generator: What generates with it, such as `build_generator` returns.
        max_tokens: The length limit of an answer.

    Raises:
        InvalidPromptFile: The prompts can't be read.
        InvalidSamplingOption: No answer can have so few tokens.
    """
    began = time.monotonic()
    options = SamplingOptions(max_tokens=max_tokens)
    settings = f"{model_files_digest(model.path)} {model.numeric_form} {max_tokens}"
    file = AnswerFile(answers_file)
    with file.writing():
        known = file.answered()
        answers: list[WorkerAnswer] = []
        asked: list[int] = []
        requests: list[GenerationRequest] = []
        ids: set[str] = set()
        for prompt in read_prompts(prompts_file):
            answer, request = _prepare(prompt, model, settings, known, options, prompt.prompt_id in ids)
            ids.add(prompt.prompt_id)
            if request is not None:
                asked.append(len(answers))
                requests.append(request)
            answers.append(answer)
        logger.info(
            "%d prompts: %d answered before, %d to answer, %d can not be; %s on %s",
            *(len(answers), sum(each.text is not None for each in answers), len(requests)),
            *(sum(each.failure is not None for each in answers), model.name, model.numeric_form),
        )
        progress = Progress("prompts answered", len(requests))
        computed = 0
        for generation in generator.generate(requests):
            place = asked[generation.index]
            answers[place] = answer = _finished(answers[place], generation)
            if answer.failure is None:
                file.add(answer)
                computed += 1
            progress.advance()
        file.finish(answers)
    return WorkerOutcome(
        prompts=len(answers),
        answered=sum(each.failure is None for each in answers),
        computed=computed,
        failed=sum(each.failure is not None for each in answers),
        seconds=time.monotonic() - began,
        numeric_form=model.numeric_form,
    )


def _prepare(
    prompt: WorkerPrompt,
    model: "CausalModel",
    settings: str,
    known: dict[str, WorkerAnswer],
    options: SamplingOptions,
    repeated: bool,
) -> tuple[WorkerAnswer, GenerationRequest | None]:
    """Returns a prompt's answer as far as it is known, and what there is to generate for it."""
    if fault := "this prompt_id has occurred before" if repeated else prompt.fault():
        return WorkerAnswer(prompt.prompt_id, failure=fault), None
    adapter = Path(prompt.adapter) if prompt.adapter else None
    if adapter:
        from inference.engines.torch.adapters import require_base  # imports torch, which takes seconds

        try:
            require_base(adapter, model.path, settings.split()[0])
            settings = f"{settings} {adapter_digest(adapter)}"
        except (EngineError, OSError) as error:
            return WorkerAnswer(prompt.prompt_id, failure=str(error)), None
    digest = prompt.sha256(settings)
    if digest in known:
        return replace(known[digest], prompt_id=prompt.prompt_id), None
    try:
        options = replace(options, response_format=prompt.response_format)
        fitting = model.first_fitting(prompt.forms, options.max_tokens)
    except (EngineError, InvalidSamplingOption) as error:
        return WorkerAnswer(prompt.prompt_id, digest, failure=str(error)), None
    if fitting is None:
        fault = (
            f"{model.name} reads and writes {model.context_tokens} tokens, too few for the shortest form of "
            f"the prompt and an answer of {options.max_tokens}: shorten it, or lower --max-tokens"
        )
        return WorkerAnswer(prompt.prompt_id, digest, failure=fault), None
    form, ids = fitting
    request = GenerationRequest(ids, options, prompt.sharing_key, adapter)
    return WorkerAnswer(prompt.prompt_id, digest, form, prompt_tokens=len(ids)), request


def _finished(answer: WorkerAnswer, generation: Generation) -> WorkerAnswer:
    if generation.failure is not None:
        return WorkerAnswer(answer.prompt_id, answer.prompt_sha256, failure=generation.failure)
    return WorkerAnswer(
        answer.prompt_id,
        answer.prompt_sha256,
        answer.form,
        generation.text,
        generation.finish_reason,
        answer.prompt_tokens,
        len(generation.token_ids),
    )


@contextmanager
def _log_and_pipes() -> Iterator[PipesContext | None]:
    """Sends the log to Dagster's run, and yields the connection to it; else to the terminal."""
    log = logging.getLogger()
    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():
        logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
        yield None
        return
    with open_dagster_pipes() as context:
        handlers = list(context.log.handlers)
        log.handlers += handlers
        try:
            yield context
        finally:
            log.handlers = [each for each in log.handlers if each not in handlers]


def _end_with_parent() -> None:
    """Ends this process when the one that started it has ended: nobody would read its answers."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCHED_EACH_S)
        os._exit(1)  # the journal is whole at any time

    threading.Thread(target=watch, daemon=True).start()


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m inference.engines.torch.worker",
        description="Answers a Parquet file of prompts with a language model, on a GPU if there is one. Run "
        "it again after it was stopped: it computes only what is missing.",
        epilog="example: python -m inference.engines.torch.worker prompts.parquet answers.parquet "
        "--model /models/qwen2.5-7b-instruct",
    )
    parser.add_argument(
        "prompts",
        type=Path,
        metavar="PROMPTS.parquet",
        help="prompt_id (text), forms (lists of chat messages with role and content, longest form first), "
        "sharing_key (text or NULL: prompts with equal keys may share what their beginnings compute), "
        "response_format (OpenAI's, as JSON, or NULL) and adapter (the folder of a LoRA adapter, or NULL)",
    )
    parser.add_argument("answers", type=Path, metavar="ANSWERS.parquet", help="the file to write")
    parser.add_argument(
        "--model", type=Path, required=True, help="a model's folder with safetensors, or a .gguf file"
    )
    parser.add_argument(
        "--quantization",
        choices=get_args(Quantization),
        help="what products with weights are computed in: int8 on a CPU, fp8 on a GPU; the type of the "
        "weights unless given",
    )
    parser.add_argument("--max-tokens", type=int, default=300, help="the length limit of an answer (300)")
    parser.add_argument(
        "--end-with-parent", action="store_true", help="end when the process that started it has ended"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 where the model or the prompts can't be used; a failed prompt is a row."""
    given = _arguments(words)
    os.umask(PRIVATE_UMASK)
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)
    if given.end_with_parent:
        _end_with_parent()
    logging.getLogger().setLevel(logging.INFO)
    with _log_and_pipes() as pipes:
        try:
            # Before a model is loaded for nothing.
            next(read_prompts(given.prompts), None)
            AnswerFile(given.answers).answered()
            SamplingOptions(max_tokens=given.max_tokens)
            # They import torch, which takes seconds.
            from inference.engines.causal_model import open_causal_model
            from inference.engines.torch.decoder import build_generator

            model = open_causal_model(given.model, given.quantization)
            outcome = answer_prompt_file(
                given.prompts, given.answers, model, build_generator(model), given.max_tokens
            )
        except (EngineError, InvalidPromptFile, InvalidSamplingOption, OSError) as error:
            logger.error("%s", error)  # without a traceback
            return 1
        logger.info(
            "%d of %d prompts have an answer, %d failed; %d answered now in %.1f s, %.2f per second",
            *(outcome.answered, outcome.prompts, outcome.failed),
            *(outcome.computed, outcome.seconds, outcome.prompts_per_s),
        )
        if pipes is not None:
            pipes.report_asset_materialization(
                {
                    "prompts": outcome.prompts,
                    "answered": outcome.answered,
                    "computed": outcome.computed,
                    "failed": outcome.failed,
                    "prompts_per_s": round(outcome.prompts_per_s, 3),
                    "device": outcome.numeric_form,
                }
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
