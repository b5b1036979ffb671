"""A local cross-encoder: a model that reads a query and a text together and scores how well they fit."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from common.model_memory import MODEL_MEMORY, weights_bytes
from retrieval.rerank.reranker import RerankError

_MOST_TOKENS = 512


class CrossEncoderReranker:
    """Scores pairs with a sentence-transformers CrossEncoder folder, on a GPU where there is one.

    Nogueira and Cho, "Passage Re-ranking with BERT" (2019).
    """

    def __init__(self, path: Path, batch: int) -> None:
        """Loads the model; nothing is fetched, and no code of the folder is run.

        Args:
            path: The model's folder.
            batch: Pairs per run of the model.

        Raises:
            RerankError: When the folder is not there, or not a cross-encoder with one score per pair.
        """
        if not path.is_dir():
            raise RerankError(
                f"no reranker at {path}: name the folder of a sentence-transformers CrossEncoder"
            )
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                path, local_files_only=True, trust_remote_code=False
            )
            self._model = MODEL_MEMORY.model(
                f"the reranker {path.name}", weights_bytes(path, 4), lambda: _load(path)
            )
            with self._model.in_use() as model:
                positions = getattr(model.config, "max_position_embeddings", None) or _MOST_TOKENS
        except RerankError:
            raise
        except Exception as error:  # a damaged file fails in its reader's own ways, struct.error among them
            raise RerankError(f"{path} can not be loaded as a cross-encoder: {error}") from error
        self._max_tokens = min(self._tokenizer.model_max_length, positions, _MOST_TOKENS)
        self._batch = batch
        self._borrowed = threading.Lock()  # a tokenizer keeps its padding and truncation for one caller only
        self.name = f"cross-encoder {path.name}"

    def scores(self, query: str, texts: Sequence[str], deadline: float) -> list[float]:
        """Returns the model's logit for each pair; a text that is too long is cut off, the query is not.

        Raises:
            RerankError: The model fails, or the query alone is longer than the model's input.
            TimeoutError: The deadline has passed; it is checked before each batch.
        """
        # By length, so that a batch is padded little.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        scores = [0.0] * len(texts)
        for first in range(0, len(order), self._batch):
            if time.monotonic() > deadline:
                raise TimeoutError
            places = order[first : first + self._batch]
            for place, score in zip(places, self._logits(query, [texts[i] for i in places]), strict=True):
                scores[place] = score
        return scores

    def _logits(self, query: str, texts: list[str]) -> list[float]:
        try:
            with self._borrowed:
                pairs = self._tokenizer(
                    [query] * len(texts),
                    texts,
                    padding=True,
                    truncation="only_second",
                    max_length=self._max_tokens,
                    return_tensors="pt",
                )
            with self._model.in_use() as model, torch.inference_mode():
                return model(**pairs.to(model.device)).logits.squeeze(-1).tolist()
        except Exception as error:  # the tokenizer and torch raise plain Exception and RuntimeError
            raise RerankError(f"{self.name} failed: {error}") from error


def _load(path: Path) -> Any:
    """Returns the model of a folder, on a GPU where there is one.

    Raises:
        RerankError: It is not a cross-encoder with one score per pair.
    """
    model, loaded = AutoModelForSequenceClassification.from_pretrained(
        path,
        local_files_only=True,
        trust_remote_code=False,
        dtype=torch.float32,
        output_loading_info=True,
    )
    # transformers would fill what a folder lacks with random numbers: an embedder has no such layer.
    if loaded["missing_keys"]:
        lacking = ", ".join(sorted(loaded["missing_keys"]))
        raise RerankError(
            f"{path} is not a cross-encoder, it lacks {lacking}: name a sentence-transformers "
            "CrossEncoder's folder"
        )
    if model.config.num_labels != 1:
        raise RerankError(
            f"{path} gives {model.config.num_labels} labels per pair: a reranker gives one score"
        )
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
