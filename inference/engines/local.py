"""Answers questions by a language model on this machine: a transformers folder or a GGUF file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.engines.protocol import EngineError
from inference.prompting.cited_reply import parse_cited_reply
from inference.prompting.prompt_assembly import (
    PromptConfig,
    PromptPassage,
    assemble_prompt_passages,
    build_prompt_messages,
)
from inference.prompting.types import Draft, Passage


class LocalEngine:
    """An engine that generates answers with a local model by greedy decoding, on a GPU if there is one."""

    def __init__(self, path: Path, max_new_tokens: int = 300, context: PromptConfig | None = None) -> None:
        """Loads the model from the local disk.

        Args:
            path: A folder in transformers' form, or a `.gguf` file (needs the package `gguf`).
            max_new_tokens: The length limit of an answer.
            context: Which passages are shown to the model, and in which order.

        Raises:
            EngineError: When there is no model at the path, or it can't be loaded.
        """
        if not path.exists():
            raise EngineError(f"no model at {path}: name a model's folder or a .gguf file")
        self._max_new_tokens = max_new_tokens
        self._context = context or PromptConfig()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        folder, options = path, {}
        if path.is_file():
            folder, options = path.parent, {"gguf_file": path.name}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, **options
            )
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                dtype=_numeric_form(self._device),
                **options,
            )
        except Exception as error:  # a damaged file fails in its reader's own ways, struct.error among them
            raise EngineError(f"{path} can not be loaded as a language model: {error}") from error
        if not self._tokenizer.chat_template:
            raise EngineError(f"{path} has no chat template: use a model tuned to follow instructions")
        self._model: Any = model.to(self._device).eval()
        self.name = f"local:{path.stem}"

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Generates an answer, and keeps only citations that the passages support.

        Raises:
            EngineError: Not even one passage fits into the model's context.
        """
        ids, context = self._prompt(question, passages)
        with torch.inference_mode():
            output = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self._max_new_tokens,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
            )
        reply = self._tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        return parse_cited_reply(reply, context, passages)

    def _prompt(self, question: str, passages: Sequence[Passage]) -> tuple[torch.Tensor, list[PromptPassage]]:
        """Returns token ids of shape (1, tokens), and the passages in them: the best, as many as fit."""
        room = self._model.config.max_position_embeddings - self._max_new_tokens
        for count in range(len(passages), 0, -1):
            context = assemble_prompt_passages(passages[:count], self._context)
            ids = self._tokenizer.apply_chat_template(
                build_prompt_messages(question, context),
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )["input_ids"]
            if context and ids.shape[1] <= room:
                return ids.to(self._device), context
        raise EngineError(
            f"{self.name} reads too little for a passage and an answer of {self._max_new_tokens} tokens"
        )


def _numeric_form(device: str) -> torch.dtype:
    """bfloat16 where the processor computes in it; it is slower than float32 where it does not."""
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has = torch.cpu.get_capabilities()
    return (
        torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16") else torch.float32
    )
