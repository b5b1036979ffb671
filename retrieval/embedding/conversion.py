"""Converts a sentence-transformers model to OpenVINO; the only module of the package that needs torch."""

import warnings
from pathlib import Path

import openvino
import torch
from transformers import AutoModel

from retrieval.atomic_files import atomic_folder
from retrieval.embedding.model_folder import ModelFolder


class _MeanPooled(torch.nn.Module):
    """A transformer, the mean over its tokens (Reimers and Gurevych, 2019), and length 1."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Vectors of shape (batch, dimension) from ids and mask of shape (batch, tokens)."""
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=-1)


def convert_to_openvino(folder: ModelFolder, target: Path) -> None:
    """Converts a model to OpenVINO and writes it to `target` (`…/model.xml`) atomically."""
    with atomic_folder(target.parent) as scratch:
        # Eager attention traces to a graph that OpenVINO fuses itself. Files on this machine only.
        transformer = AutoModel.from_pretrained(
            folder.path,
            attn_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
        ).eval()
        example = torch.ones(2, 8, dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of each shape that transformers checks
            model = openvino.convert_model(
                _MeanPooled(transformer), example_input={"input_ids": example, "attention_mask": example}
            )
        openvino.save_model(model, scratch / target.name, compress_to_fp16=False)
