"""Answers questions by a language model on this machine: a transformers folder or a GGUF file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.model_memory import MODEL_MEMORY, ModelMemoryError
from inference.engines.adapter_files import require_base
from inference.engines.causal_model import CausalModel, causal_model_bytes, open_causal_model
from inference.engines.digest import ModelFiles, engine_digest, model_name
from inference.engines.generation import (
    Generation,
    GenerationRequest,
    Generator,
    Quantization,
    SamplingOptions,
)
from inference.engines.protocol import EngineError, EnginePrompt, EngineReply, answer_one
from inference.engines.torch.decoder import KV_MEMORY_BYTES, build_generator
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


@dataclass(frozen=True)
class _Loaded:
    """A model, and what generates with it."""

    model: CausalModel
    generator: Generator

    @classmethod
    def of(cls, path: Path, kv_memory_bytes: int, quantization: Quantization | None) -> "_Loaded":
        model = open_causal_model(path, quantization)
        return cls(model, build_generator(model, kv_memory_bytes))


class LocalEngine:
    """An engine that generates answers with a local model by greedy decoding, on a GPU if there is one."""

    def __init__(
        self,
        path: Path,
        max_new_tokens: int = 300,
        context: PromptConfig | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        """Loads the model from the local disk.

        Args:
            path: A folder in transformers' form, or a `.gguf` file (needs the package `gguf`).
            max_new_tokens: The length limit of an answer.
            context: Which passages are shown to the model, and in which order.
            quantization: What products with weights are computed in; None for the type of the weights.

        Raises:
            InvalidModel: When there is no model at the path, or it can't be used.
            EngineError: When it does not fit into the memory of models, or can't be quantized so here.
        """
        weights, budget = causal_model_bytes(path), MODEL_MEMORY.budget_bytes
        # Half of what the budget leaves: an embedder has to stay beside it.
        kv = KV_MEMORY_BYTES if budget is None else max(0, min(KV_MEMORY_BYTES, (budget - weights) // 2))
        try:
            self._loaded = MODEL_MEMORY.model(
                f"the generator {model_name(path)}", weights + kv, lambda: _Loaded.of(path, kv, quantization)
            )
            with self._loaded.in_use() as loaded:
                self._form = f"{loaded.model.numeric_form} {type(loaded.generator).__name__}"
        except ModelMemoryError as error:
            raise EngineError(str(error)) from error
        self._path = path
        self._files = ModelFiles(path)
        self._max_new_tokens = max_new_tokens
        self._context = context or PromptConfig()
        self.name = f"local:{model_name(path)}"

    @cached_property
    def digest(self) -> str:
        """A digest of the model's files, its numeric form, what generates, the prompt and the parameters."""
        model, form = self._files.digest, self._form
        return engine_digest("local", model, form, PROMPT_INSTRUCTIONS, self._context, self._max_new_tokens)

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Generates an answer, and keeps only citations that the passages support.

        Raises:
            EngineError: Not even one passage fits into the model's context, or the model fails.
        """
        return answer_one(self, question, passages)

    def answer_many(self, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        """Yields a reply to each prompt as soon as it is ready, in any order; a failed one fails alone.

        Raises:
            EngineChanged: The model's files were replaced since it was loaded.
        """
        self._files.require_unchanged()  # what needs memory may have had it unloaded, to be loaded again here
        try:
            with self._loaded.in_use() as loaded:
                yield from self._answer_many(loaded, prompts)
        except ModelMemoryError as error:
            for index in range(len(prompts)):
                yield EngineReply.failed(index, self, str(error))

    def _answer_many(self, loaded: "_Loaded", prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        asked: list[tuple[int, PromptForm]] = []
        requests: list[GenerationRequest] = []
        counts = count_passages((each.sharing_key, each.passages) for each in prompts)
        for index, prompt in enumerate(prompts):
            try:
                form, request = self._request(loaded.model, prompt, counts.get(prompt.sharing_key or ""))
            except EngineError as error:
                yield EngineReply.failed(index, self, str(error))
            else:
                asked.append((index, form))
                requests.append(request)
        for generation in loaded.generator.generate(requests):
            index, form = asked[generation.index]
            yield self._reply(
                index, form, loaded.model, requests[generation.index], generation, prompts[index]
            )

    def _request(
        self, model: CausalModel, prompt: EnginePrompt, counts: PassageCounts | None
    ) -> tuple[PromptForm, GenerationRequest]:
        """Returns the longest form of a prompt that leaves room for an answer.

        Raises:
            EngineError: None does, the chat template fails, or its adapter is for another base.
        """
        forms = list(prompt_forms(prompt.question, prompt.passages, self._context, counts))
        fitting = model.first_fitting((form.messages for form in forms), self._max_new_tokens)
        if fitting is None:
            raise EngineError(
                f"{self.name} reads {model.context_tokens} tokens, too few for a passage and an answer "
                f"of {self._max_new_tokens}: set HEADWATER_GENERATOR__MAX_NEW_TOKENS lower, or use another "
                "model"
            )
        number, ids = fitting
        options = SamplingOptions(max_tokens=self._max_new_tokens)
        adapter = prompt.adapted.adapter if prompt.adapted else None
        if adapter:
            require_base(adapter.folder, self._path, self._files.digest)
        folder = adapter.folder if adapter else None
        return forms[number], GenerationRequest(ids, options, prompt.sharing_key, folder)

    def _reply(
        self,
        index: int,
        form: PromptForm,
        model: CausalModel,
        request: GenerationRequest,
        generation: Generation,
        prompt: EnginePrompt,
    ) -> EngineReply:
        if generation.failure is not None:
            return EngineReply.failed(index, self, generation.failure)
        usage = TokenUsage(len(request.prompt), len(generation.token_ids))
        reply = model.reply_text(generation.text)
        draft = generated_draft(reply, generation.finish_reason, form, prompt.passages, usage)
        return EngineReply(index, draft, self.name, self.digest, adapted=prompt.adapted)
