"""The embedder as torch trains it: read from a model folder, written back as one."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
import transformers
from tokenizers import Tokenizer

from common.progress import Progress
from inference.engines.causal_model import numeric_form
from retrieval.embedding.model_folder import ModelFolder, UnsupportedEmbeddingModel, read_model_folder
from retrieval.embedding.tokenization import load_text_tokenizer

_WIDTH_STEP = 8
"""Batches are as wide as a multiple of this: fewer shapes, and tiles of matrix units are filled."""
_BATCH_TOKENS = 4096


class UnknownBase(ValueError):
    """The base of a training is no model that can be trained; the message says why."""


class TrainingNotInstalled(ImportError):
    """The packages that training needs are not installed."""


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts as tokens, cut off where the model ceases to read.

    Attributes:
        ids: The tokens of all texts, one after another; int64.
        offsets: Where each text begins, and where the last ends; (texts + 1,) int64.
    """

    ids: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each text."""
        return np.diff(self.offsets)

    def batch(self, rows: npt.NDArray[np.intp], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns tokens and mask of some texts, (texts, width) int64 each."""
        lengths = self.lengths[rows]
        width = -(-int(lengths.max()) // _WIDTH_STEP) * _WIDTH_STEP
        inside = np.arange(width) < lengths[:, None]
        tokens = np.full(inside.shape, pad, dtype=np.int64)
        tokens[inside] = np.concatenate([self.ids[self.offsets[row] : self.offsets[row + 1]] for row in rows])
        return torch.from_numpy(tokens), torch.from_numpy(inside.astype(np.int64))


class EmbeddingNetwork:
    """An embedder that can be trained. Dropout is off: a run can then go on exactly where it ended.

    Attributes:
        folder: The base's folder.
        module: The network.
        dimension: The length of a vector.
        device: Where it is.
        recomputes: Whether values of layers are computed again for their gradients, in place of being kept.
    """

    def __init__(self, base: Path) -> None:
        """Reads the base.

        Raises:
            UnknownBase: There is no such folder, or the embedder could not run what is in it.
            TrainingNotInstalled: The extra `train` is not installed.
        """
        try:
            from sentence_transformers import SentenceTransformer  # takes seconds to import
        except ImportError as error:
            raise TrainingNotInstalled(
                "training needs packages that only it needs: `make setup EXTRAS=train` installs them"
            ) from error
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()  # it warns of what a saved model never said

        self.folder = read_base(base)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = SentenceTransformer(
            str(base), device=str(self.device), local_files_only=True, trust_remote_code=False
        )
        turn_off_dropout(self.module)
        for name, parameter in self.module.named_parameters():
            # Embeddings of tokens are half of a small model, and a corpus has few of them: left as they are,
            # a step costs half of the memory, and words that the corpus lacks keep their meaning.
            parameter.requires_grad = "word_embeddings" not in name and ".pooler." not in name
        self.module.train()
        self.recomputes = False
        self.dimension = self.folder.dimension
        self._tokenizer: Tokenizer = load_text_tokenizer(self.folder)

    def recompute(self) -> None:
        """From here on computes values of layers again for their gradients, in place of keeping them."""
        self.module[0].auto_model.gradient_checkpointing_enable({"use_reentrant": False})
        self.recomputes = True

    @property
    def parameters(self) -> int:
        """The number of parameters that are trained: all but the embeddings of tokens."""
        return sum(each.numel() for _, each in self.named_parameters())

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Returns the parameters that are trained, by name, always in one order."""
        return [(name, each) for name, each in self.module.named_parameters() if each.requires_grad]

    def weights(self) -> dict[str, torch.Tensor]:
        """Returns a copy of the parameters that are trained, by name."""
        return {name: each.detach().clone() for name, each in self.named_parameters()}

    @torch.no_grad()
    def mix(self, base: Mapping[str, torch.Tensor], share: float) -> None:
        """Makes each weight a mean of its own and the base's.

        What was trained on one kind of text ranks others worse; such a mean keeps most of both (Wortsman et
        al., 2021, "Robust fine-tuning of zero-shot models", 2109.01903; for embedders Xiao et al., 2023,
        "LM-Cocktail", 2311.13534).

        Args:
            base: The base's weights, by name.
            share: Their share, from 0 to 1.
        """
        for name, parameter in self.named_parameters():
            parameter.lerp_(base[name], share)

    def tokenize(self, texts: Sequence[str], question: bool) -> tuple[TokenizedTexts, int]:
        """Returns texts as tokens, after their prompt, and how many were cut off."""
        prompt = self.folder.query_prompt if question else self.folder.document_prompt
        encodings = self._tokenizer.encode_batch_fast([prompt + text for text in texts])
        lengths = np.fromiter((len(each.ids) for each in encodings), np.int64, len(encodings))
        ids = np.concatenate([np.asarray(each.ids, dtype=np.int64) for each in encodings])
        cut = sum(bool(each.overflowing) for each in encodings)
        return TokenizedTexts(ids, np.concatenate([[0], np.cumsum(lengths)])), cut

    def forward(self, texts: TokenizedTexts, rows: npt.NDArray[np.intp]) -> torch.Tensor:
        """Returns the unit vectors of some texts, (texts, dimension) float32, with their gradient."""
        tokens, mask = texts.batch(rows, self.folder.pad_id)
        features = {"input_ids": tokens.to(self.device), "attention_mask": mask.to(self.device)}
        with self._bfloat16():
            vectors = self.module(features)["sentence_embedding"]
        return functional.normalize(vectors.float(), dim=-1)

    @torch.no_grad()
    def encode(self, texts: TokenizedTexts, what: str) -> torch.Tensor:
        """Returns the unit vectors of all texts, (texts, dimension) float32; progress is said."""
        vectors = torch.empty(len(texts.lengths), self.dimension)
        progress = Progress(what, len(texts.lengths))
        for rows in _by_length(texts.lengths):
            vectors[torch.from_numpy(rows)] = self.forward(texts, rows).cpu()
            progress.advance(len(rows))
        return vectors

    def save(self, folder: Path) -> None:
        """Writes the model as a folder: the base's files with these weights, as safetensors.

        Tokenizer and configuration stay byte for byte the base's, so that texts are cut as they were.
        """
        for name in self.folder.files:
            if not name.endswith(".safetensors"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.folder.path / name, folder / name)
        inside = self.folder.transformer.relative_to(self.folder.path)
        scratch = folder / ".weights"
        self.module[0].auto_model.save_pretrained(scratch, max_shard_size="1TB")
        (scratch / "model.safetensors").replace(folder / inside / "model.safetensors")
        shutil.rmtree(scratch)
        dense = [each for each in self.module if type(each).__name__ == "Dense"]
        for layer, each in zip(self.folder.dense, dense, strict=True):
            each.save(str(scratch))
            (scratch / "model.safetensors").replace(folder / layer.path / "model.safetensors")
            shutil.rmtree(scratch)

    @contextlib.contextmanager
    def _bfloat16(self) -> Iterator[None]:
        """Computes in bfloat16 where the processor has instructions for it; else it would be slower."""
        fast = numeric_form(self.device.type) == torch.bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            yield


def read_base(base: Path) -> ModelFolder:
    """Returns the folder of an embedder that is to be trained.

    Raises:
        UnknownBase: There is no such folder, or the embedder could not run what is in it.
    """
    try:
        return read_model_folder(base)
    except (UnsupportedEmbeddingModel, OSError) as error:
        raise UnknownBase(f"{base} can not be trained: {error}") from error


def turn_off_dropout(module: torch.nn.Module) -> None:
    """Turns dropout off, that of layers and that which attention reads: a run can then go on exactly."""
    for each in module.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
        for name, value in list(vars(each).items()):
            if "dropout" in name and isinstance(value, float):
                setattr(each, name, 0.0)


def _by_length(lengths: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.intp]]:
    """Yields rows in batches of like lengths, each of at most `_BATCH_TOKENS` unless it is one text."""
    order = np.argsort(lengths, kind="stable")
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and (last + 1 - first) * lengths[order[last]] <= _BATCH_TOKENS:
            last += 1
        yield order[first:last]
        first = last
