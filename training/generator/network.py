"""A causal language model with a low-rank adapter as torch trains it; written in PEFT's form."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from safetensors.torch import save_file

from inference.engines.adapter_files import BASE_DIGEST
from inference.engines.causal_model import CausalModel, open_causal_model
from inference.engines.digest import ADAPTER_CONFIG, ADAPTER_WEIGHTS, model_files_digest
from inference.engines.protocol import EngineError
from training.generator.examples import WrittenExample
from training.jobs.network import TrainingNotInstalled, UnknownBase, turn_off_dropout
from training.jobs.plan import GeneratorTraining

_SCALE = 2
_TARGETS = "all-linear"
"""All products are adapted: a rank spread over all learns more than attention's alone (Dettmers et al., 2023,
"QLoRA", section 4)."""
_IGNORED = -100
_WIDTH_STEP = 64
"""Batches are as wide as a multiple of this: what torch keeps for each shape would else grow step by step."""


@dataclass(frozen=True)
class TokenizedExamples:
    """Examples as tokens.

    Attributes:
        names: Their ids.
        ids: The tokens of each, the prompt's and the response's.
        responses: How many of these are the response's.
        left_out: How many examples are longer than the model reads, and are not here.
    """

    names: list[str]
    ids: list[npt.NDArray[np.int64]]
    responses: npt.NDArray[np.int64]
    left_out: int

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each."""
        return np.array([len(each) for each in self.ids], np.int64)


class AdapterNetwork:
    """A base that stays as it is, with an adapter that is trained. Nothing is dropped out.

    Attributes:
        base: The base's folder or GGUF file.
        base_digest: The digest of its files.
        device: Where it is.
        max_tokens: The most tokens of an example.
        recomputes: Whether values of layers are computed again for their gradients, in place of being kept.
    """

    def __init__(self, base: Path, training: GeneratorTraining, adapter: Path | None = None) -> None:
        """Reads the base, and makes an adapter that changes nothing yet, or reads one.

        Args:
            base: A folder in transformers' form, or a GGUF file.
            training: The settings.
            adapter: The adapter to go on with; None for a new one.

        Raises:
            UnknownBase: There is no such model, or it can not be used.
            TrainingNotInstalled: The extra `train` is not installed.
        """
        try:
            from peft import LoraConfig, PeftModel, get_peft_model  # takes seconds to import
        except ImportError as error:
            raise TrainingNotInstalled(
                "training needs packages that only it needs: `make setup EXTRAS=train` installs them"
            ) from error
        try:
            self._causal: CausalModel = open_causal_model(base)
        except EngineError as error:
            raise UnknownBase(f"{base} can not be trained: {error}") from error
        self.base, self.base_digest = base, model_files_digest(base)
        model = self._causal.model
        self.device: torch.device = model.device
        self.max_tokens = min(training.max_tokens, self._causal.context_tokens)
        model.config.use_cache = False
        self.recomputes = False
        torch.manual_seed(training.seed)
        self._config = LoraConfig(
            task_type="CAUSAL_LM",
            r=training.rank,
            lora_alpha=_SCALE * training.rank,
            lora_dropout=0.0,
            target_modules=_TARGETS,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by names of before
            if adapter is None:
                self.model: Any = get_peft_model(model, self._config)
            else:
                self.model = PeftModel.from_pretrained(model, str(adapter))
        self.model.train()
        turn_off_dropout(self.model)
        if self.device.type == "cuda":
            self.recompute()

    def recompute(self) -> None:
        """From here on computes values of layers again for their gradients, in place of keeping them."""
        self._causal.model.activation_checkpointing_enable({"use_reentrant": False})
        self.recomputes = True

    @property
    def parameters(self) -> int:
        """The number of the base's parameters without its embeddings of tokens."""
        embeddings = self._causal.model.get_input_embeddings().weight.numel()
        every = sum(each.numel() for name, each in self.model.named_parameters() if "lora_" not in name)
        return int(every) - int(embeddings)

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Returns the adapter's parameters, by name, always in one order."""
        return [(name, each) for name, each in self.model.named_parameters() if "lora_" in name]

    def tokenize(self, examples: Sequence[WrittenExample]) -> TokenizedExamples:
        """Returns examples as tokens: of each the longest form that the model reads.

        A control token that a response names is text: only its end is the token that ends a text.
        """
        names, ids, responses = [], [], []
        tokenizer, end = self._causal.tokenizer, min(self._causal.end_token_ids)
        as_text = {"add_special_tokens": False, "split_special_tokens": True}
        if tokenizer.eos_token_id in self._causal.end_token_ids:
            end = tokenizer.eos_token_id
        for example in examples:
            for messages, response in zip(example.forms, example.responses, strict=True):
                written = tokenizer(response, **as_text)["input_ids"]
                prompt = self._causal.prompt_ids(messages)
                if len(prompt) + len(written) < self.max_tokens:
                    names.append(example.name)
                    ids.append(np.concatenate([prompt, np.array([*written, end], np.int64)]))
                    responses.append(len(written) + 1)
                    break
        counts = np.array(responses, np.int64)
        return TokenizedExamples(names, ids, counts, len(examples) - len(names))

    def losses(self, examples: TokenizedExamples, rows: npt.NDArray[np.intp]) -> torch.Tensor:
        """Returns the sum of the negative log-likelihoods of each response's tokens, (rows,) float32.

        Args:
            examples: The examples.
            rows: Which of them.
        """
        lengths, responses = examples.lengths[rows], examples.responses[rows]
        width = min(-(-int(lengths.max()) // _WIDTH_STEP) * _WIDTH_STEP, self._causal.context_tokens)
        ids = np.zeros((len(rows), width), np.int64)
        labels = np.full((len(rows), width), _IGNORED, np.int64)
        # Padded on the right, where no token before looks: so attention needs no mask, and skips what is
        # later than each token. No logits are computed before the first response.
        for place, row in enumerate(rows):
            tokens = examples.ids[row]
            ids[place, : len(tokens)] = tokens
            labels[place, len(tokens) - responses[place] : len(tokens)] = tokens[-responses[place] :]
        kept = width - int((lengths - responses).min()) + 1
        found = self.model(input_ids=torch.from_numpy(ids).to(self.device), logits_to_keep=kept)
        logits = found.logits[:, :-1].float()
        wanted = torch.from_numpy(labels[:, width - kept + 1 :]).to(self.device)
        each = functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=_IGNORED, reduction="none"
        )
        return each.view(len(rows), -1).sum(-1)

    def save(self, folder: Path) -> None:
        """Writes the adapter in PEFT's form, with the base's digest beside its weights."""
        from peft import get_peft_model_state_dict

        # Else it looks for the base's configuration, which a GGUF file has none of, and warns.
        state = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        weights = {
            name: each.detach().to("cpu", torch.float32).contiguous() for name, each in sorted(state.items())
        }
        # One entry: safetensors writes several in any order, and the same adapter is to be the same bytes.
        save_file(weights, folder / ADAPTER_WEIGHTS, {BASE_DIGEST: self.base_digest})
        self.model.peft_config["default"].save_pretrained(str(folder))
        # PEFT writes names in any order, and where the base lies.
        file = folder / ADAPTER_CONFIG
        config = json.loads(file.read_text(encoding="utf-8"))
        config |= {
            "target_modules": sorted(config["target_modules"]),
            "base_model_name_or_path": self._causal.name,
            "inference_mode": True,
        }
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (folder / "README.md").unlink(missing_ok=True)  # the registry writes the card
