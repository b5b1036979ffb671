"""Answers the prompts of a file that have no answer yet, with a model that is open."""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

from common.progress import Progress
from inference.engines.adapter_files import require_base
from inference.engines.causal_model import CausalModel
from inference.engines.digest import adapter_digest, model_files_digest
from inference.engines.generation import (
    Generation,
    GenerationRequest,
    Generator,
    InvalidSamplingOption,
    SamplingOptions,
)
from inference.engines.protocol import EngineError
from inference.engines.worker.prompt_files import AnswerFile, WorkerAnswer, WorkerPrompt, read_prompts

logger = logging.getLogger(__name__)


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
    prompts_file: Path, answers_file: Path, model: CausalModel, generator: Generator, max_tokens: int
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
            answers[place] = answer = _finished(answers[place], generation, model, requests[generation.index])
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
    model: CausalModel,
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


def _finished(
    answer: WorkerAnswer, generation: Generation, model: CausalModel, request: GenerationRequest
) -> WorkerAnswer:
    if generation.failure is not None:
        return WorkerAnswer(answer.prompt_id, answer.prompt_sha256, failure=generation.failure)
    return WorkerAnswer(
        answer.prompt_id,
        answer.prompt_sha256,
        answer.form,
        generation.text if request.options.json_schema else model.reply_text(generation.text),
        generation.finish_reason,
        answer.prompt_tokens,
        len(generation.token_ids),
    )
