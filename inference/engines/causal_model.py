"""Opens a causal language model from the local disk, says what is wrong with it, and writes its prompts.

It needs no more than torch, transformers and safetensors: a worker on a GPU machine has nothing else.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
from transformers.utils.logging import disable_progress_bar

from common.model_memory import weights_bytes
from inference.engines.chat_template import ChatTemplate, ChatTemplateError, without_system_message
from inference.engines.digest import model_name
from inference.engines.generation import Generation, GenerationRequest, Quantization, SamplingOptions
from inference.engines.model_files import InvalidModel, check_model_files
from inference.engines.torch.linear import check_quantization
from inference.prompting.thoughts import THOUGHT

Message = Mapping[str, str]

_PROBE = "Is water wet?"
_PROBED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": _PROBE}]


@dataclass(frozen=True, eq=False)
class CausalModel:
    """A causal language model with its tokenizer.

    Attributes:
        path: Where it was opened.
        model: The transformers model, in evaluation mode.
        tokenizer: Its tokenizer.
        template: Its chat template.
        context_tokens: Number of tokens that it can read and write together.
        numeric_form: The kind of device that it is on, the type of its weights and the quantization, such as
            `cuda bfloat16 fp8`.
        takes_system_message: Whether its chat template has a place for instructions.
        quantization: What its products are to be computed in, where not in the type of its weights.
    """

    path: Path
    model: Any
    tokenizer: Any
    template: ChatTemplate
    context_tokens: int
    numeric_form: str
    takes_system_message: bool
    quantization: Quantization | None = None

    @property
    def name(self) -> str:
        """Its folder's or file's name."""
        return model_name(self.path)

    @cached_property
    def end_token_ids(self) -> frozenset[int]:
        """The tokens that end a text: all that its generation settings, configuration and tokenizer name."""
        return frozenset(self.model.generation_config.eos_token_id)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """Matches what the tokenizer would read as a control token."""
        marks = [str(each) for each in self.tokenizer.get_added_vocab() if re.search(r"[^\w\s]", each)]
        marks.sort(key=len, reverse=True)
        return re.compile("|".join(re.escape(mark) for mark in marks if len(mark) > 1) or r"(?!)")

    def prompt_ids(self, messages: Sequence[Message]) -> npt.NDArray[np.int64]:
        """Returns the token ids of a prompt, shape (tokens,).

        Messages quote documents, so a control token's name in them is broken in two: no document can end its
        message and begin one of the system.

        Raises:
            InvalidModel: The chat template can not write these messages.
        """
        safe = [
            each | {"content": self._control.sub(_broken, each["content"])} for each in map(dict, messages)
        ]
        if not self.takes_system_message:
            safe = without_system_message(safe)
        try:
            text = self.template.write(safe)
        except ChatTemplateError as error:
            raise InvalidModel(f"the chat template of {self.path} fails: {error}") from error
        return np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int64)

    @cached_property
    def _begins_thinking(self) -> bool:
        """Whether the chat template writes the mark before a thought, so that the model does not."""
        shown = _PROBED if self.takes_system_message else without_system_message(_PROBED)
        return self.template.write(shown).rstrip().endswith(THOUGHT)

    def reply_text(self, text: str) -> str:
        """Returns what the model wrote, with the mark before a thought where its prompt ended with it."""
        return f"{THOUGHT}{text}" if self._begins_thinking else text

    def first_fitting(
        self, forms: Iterable[Sequence[Message]], max_tokens: int
    ) -> tuple[int, npt.NDArray[np.int64]] | None:
        """Returns the first of several prompts that leaves room for an answer, as its number and its ids.

        Args:
            forms: The prompts, the longest first.
            max_tokens: How many tokens the answer may have.

        Returns:
            None if none fits.
        """
        for number, messages in enumerate(forms):
            ids = self.prompt_ids(messages)
            if len(ids) + max_tokens <= self.context_tokens:
                return number, ids
        return None

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        """Yields what transformers' `generate` writes after each prompt, in order; a bad one fails alone.

        It decodes greedily: of the options, only `max_tokens` may be set.
        """
        for index, request in enumerate(requests):
            try:
                yield self._generate(index, request)
            except (
                RuntimeError,
                ValueError,
                IndexError,
            ) as error:  # torch.OutOfMemoryError is a RuntimeError
                yield Generation(index, np.array([], np.int32), "", "error", failure=f"{self.name}: {error}")

    def _generate(self, index: int, request: GenerationRequest) -> Generation:
        if request.options != SamplingOptions(max_tokens=request.options.max_tokens):
            raise ValueError("only greedy decoding is possible with this model")
        if request.adapter is not None:
            raise ValueError("only the batch decoder has adapters, and it does not know this model")
        ids = torch.from_numpy(request.prompt.astype(np.int64))[None].to(self.model.device)
        with torch.inference_mode():
            output = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=request.options.max_tokens,
                do_sample=False,
            )
        tokens = output[0, ids.shape[1] :].to("cpu", torch.int32).numpy()
        ended = bool(len(tokens)) and int(tokens[-1]) in self.end_token_ids
        tokens = tokens[:-1] if ended else tokens
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return Generation(index, tokens, text, "stop" if ended else "length")


def open_causal_model(
    path: Path, quantization: Quantization | None = None, dtype: torch.dtype | None = None
) -> CausalModel:
    """Returns a model, loaded from the local disk to a GPU if there is one.

    Only weights in safetensors or GGUF are read, since pickles can run code, and no code that comes with a
    model is run.

    Args:
        path: A folder in transformers' form, or a `.gguf` file (which needs the packages `gguf` and
            `accelerate`).
        quantization: What its products are to be computed in; None for the type of its weights.
        dtype: The type of its weights; by the device unless given.

    Raises:
        InvalidModel: There is none, or it can not be used.
        UnavailableQuantization: This machine does not compute so.
    """
    check_quantization(quantization, _device())
    check_model_files(path)
    model = _load_model(path, dtype)
    tokenizer = _load_tokenizer(path, model)
    template = _read_template(path, tokenizer)
    numbers = (model.device.type, str(model.dtype).removeprefix("torch."), quantization)
    return CausalModel(
        path,
        model,
        tokenizer,
        template,
        context_tokens=_context_tokens(path, model),
        numeric_form=" ".join(each for each in numbers if each),
        takes_system_message=_probe_template(path, template),
        quantization=quantization,
    )


def causal_model_bytes(path: Path) -> int:
    """Returns the memory that a model's weights take, without loading them.

    Raises:
        InvalidModel: There is none, or it can not be used.
    """
    check_model_files(path)
    bytes_per_weight = numeric_form(_device()).itemsize
    if path.is_dir():
        return weights_bytes(path, bytes_per_weight)
    from gguf import GGUFReader

    try:
        return sum(int(each.n_elements) for each in GGUFReader(path).tensors) * bytes_per_weight
    except Exception as error:  # a damaged file fails in its reader's own ways
        raise InvalidModel(f"{path} can not be loaded as a language model: {error}") from error


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def numeric_form(device: str) -> torch.dtype:
    """Returns bfloat16 where the processor computes in it; it is slower than float32 where it does not."""
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has = torch.cpu.get_capabilities()
    return (
        torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else torch.float32
    )


def _load_model(path: Path, dtype: torch.dtype | None) -> Any:
    disable_progress_bar()  # a bar for what takes a second, in logs too
    device = _device()
    folder, options = _source(path)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=path.is_dir() or None,
            dtype=dtype or numeric_form(device),
            output_loading_info=True,
            # Packed weights would be multiplied by kernels from a hub.
            quantization_config=None if path.is_dir() else GgufConfig(dequantize=True),
            **options,
        )
    except Exception as error:  # a damaged file fails in its reader's own ways, struct.error among them
        raise InvalidModel(f"{path} can not be loaded as a language model: {error}") from error
    for fault, kind in (("missing_keys", "lack"), ("unexpected_keys", "have besides")):
        if names := sorted(map(str, found[fault])):
            raise InvalidModel(
                f"{path}: the configuration does not describe the weights, which {kind} {names[0]}"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                + ": fetch both files of one model again"
            )
    for name, weights in model.named_parameters():
        if weights.is_floating_point() and not bool(torch.isfinite(weights).all()):
            raise InvalidModel(
                f"{path}: the weights {name} hold NaN or infinity in {str(weights.dtype)[6:]}: fetch the "
                "model again"
            )
    ends = _token_ids(model.generation_config.eos_token_id) | _token_ids(model.config.eos_token_id)
    # Sampling options that come with a model would change answers unseen.
    model.generation_config = GenerationConfig(eos_token_id=sorted(ends))
    try:
        return model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise InvalidModel(f"{path} does not fit into the GPU's memory: use a smaller model") from error


def _load_tokenizer(path: Path, model: Any) -> Any:
    folder, source = _source(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **source
        )
    except Exception as error:
        raise InvalidModel(f"{path} has no tokenizer that can be read: {error}") from error
    most = max(tokenizer.get_vocab().values(), default=-1)
    rows = model.get_input_embeddings().weight.shape[0]
    if most < 1 or not tokenizer(_PROBE)["input_ids"]:
        raise InvalidModel(f"{path} has no tokenizer (tokenizer.json): fetch the whole model")
    if most >= rows:
        raise InvalidModel(
            f"{path}: the tokenizer has tokens up to {most} and the model {rows} embeddings: fetch both of "
            "one model again"
        )
    if not tokenizer.chat_template:
        raise InvalidModel(f"{path} has no chat template: use a model tuned to follow instructions")
    options = model.generation_config
    # Each of the three is incomplete in some model: one that ends with a token nobody knows writes on and on.
    ends = _token_ids(options.eos_token_id) | _token_ids(tokenizer.eos_token_id)
    options.eos_token_id = sorted(each for each in ends if 0 <= each < rows)
    if not options.eos_token_id:
        raise InvalidModel(f"{path} names no token that ends a text (eos_token_id): fetch the whole model")
    options.pad_token_id = next(
        each for each in (tokenizer.pad_token_id, *options.eos_token_id) if each is not None
    )
    return tokenizer


def _token_ids(said: int | list[int] | None) -> set[int]:
    return set(said if isinstance(said, list) else [] if said is None else [said])


def _source(path: Path) -> tuple[Path, dict[str, str]]:
    """Returns what transformers calls the folder, and the option that names a GGUF file in it."""
    return (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})


def _context_tokens(path: Path, model: Any) -> int:
    config = model.config.get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise InvalidModel(
            f"{path}: config.json gives {length!r} as max_position_embeddings, the longest text that the "
            "model reads: write the number of tokens there"
        )
    return length


def _read_template(path: Path, tokenizer: Any) -> ChatTemplate:
    try:
        return ChatTemplate(tokenizer.get_chat_template(), tokenizer.special_tokens_map)
    except Exception as error:  # several templates and none that is the default, among others
        raise InvalidModel(
            f"{path} has no chat template that can be used: {error}; use another model"
        ) from error


def _probe_template(path: Path, template: ChatTemplate) -> bool:
    """Returns whether the chat template takes instructions; some raise an error at them."""
    fault: object = "it leaves the question out"
    for takes_system_message in (True, False):
        shown = _PROBED if takes_system_message else without_system_message(_PROBED)
        try:
            text = template.write(shown)
        except ChatTemplateError as error:
            fault = error
            continue
        if all(each["content"] in text for each in shown):
            return takes_system_message
    raise InvalidModel(f"the chat template of {path} can not be used: {fault}; use another model")


def _broken(mark: re.Match[str]) -> str:
    return f"{mark[0][0]} {mark[0][1:]}"
