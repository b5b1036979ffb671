"""What identifies the model behind an embeddings endpoint, and the tokens that were sent to it today."""

import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from tokenizers import Tokenizer

from common.atomic_files import atomic_file
from retrieval.embedding.config import EmbedderConfig, EmbeddingFault
from retrieval.embedding.model_folder import read_model_folder

PROBES = (
    "The river rises in the hills and falls to the sea.",
    "def flow(x: float) -> float: return x ** 2 % 7",
    "東京 данные Überraschung: 5 mg twice daily",
)
"""Texts whose vectors tell one model from another; the first goes with each request."""


class _StoredIdentity(BaseModel):
    """The file: the vectors as base64 of float32, little-endian, of length 1."""

    model: str
    dimension: int
    probes: tuple[str, ...]
    first_asked: datetime


@dataclass(frozen=True)
class EndpointIdentity:
    """The identity of a model behind an endpoint, from its first answer.

    Attributes:
        path: The file that keeps it.
        model: Its name at the service.
        dimension: The length of its vectors.
        probes: The unit vectors of `PROBES`, of shape (probes, dimension).
    """

    path: Path
    model: str
    dimension: int
    probes: npt.NDArray[np.float32]

    def digest(self, config: EmbedderConfig) -> str:
        """Returns the hex SHA-256 that identifies the vectors, as they are configured."""
        settings = [config.query_prompt, config.document_prompt, config.dimension]
        named = json.dumps(["endpoint", self.model, self.dimension, *settings]).encode()
        return hashlib.sha256(named + self.probes.astype("<f4").tobytes()).hexdigest()


def _path(model: str, cache: Path, suffix: str) -> Path:
    return cache / "endpoints" / f"{hashlib.sha256(model.encode()).hexdigest()[:16]}{suffix}"


def read_identity(model: str, cache: Path) -> EndpointIdentity | None:
    """Returns the stored identity of a model, or None if it was never asked.

    Raises:
        EmbeddingFault: The file is damaged.
    """
    path = _path(model, cache, ".json")
    try:
        stored = _StoredIdentity.model_validate_json(path.read_text())
        probes = np.stack([np.frombuffer(base64.b64decode(each), dtype="<f4") for each in stored.probes])
        if probes.shape != (len(PROBES), stored.dimension):
            raise ValueError(f"vectors of shape {probes.shape}")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EmbeddingFault(
            f"{path} does not hold the identity of an embeddings endpoint ({error}): restore it from a "
            "backup, or remove it to embed everything anew"
        ) from error
    return EndpointIdentity(path, model, stored.dimension, probes)


def store_identity(model: str, probes: npt.NDArray[np.float32], cache: Path) -> EndpointIdentity:
    """Stores a model's identity and returns it; that of another process, if it was first, is kept."""
    path = _path(model, cache, ".json")
    stored = _StoredIdentity(
        model=model,
        dimension=probes.shape[1],
        probes=tuple(base64.b64encode(each.astype("<f4").tobytes()).decode() for each in probes),
        first_asked=datetime.now(UTC),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_suffix(f".{os.getpid()}")
    with atomic_file(own) as fresh:
        fresh.write_text(stored.model_dump_json())
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
    found = read_identity(model, cache)
    if found is None:
        raise EmbeddingFault(f"{path} was removed as soon as it was written: run again")
    return found


class TokenBudget:
    """The tokens that one state folder may send on a day, counted in a file that its processes share."""

    def __init__(self, path: Path, limit: int | None, tokenizer_path: Path) -> None:
        self._path, self._limit = path, limit
        self._tokenizer = Tokenizer.from_file(str(tokenizer_path)) if limit else None

    @classmethod
    def of(cls, config: EmbedderConfig, cache: Path) -> "TokenBudget":
        """Returns the budget of a configured endpoint."""
        path = _path(config.endpoint.model, cache, "-tokens")
        limit = config.endpoint.tokens_per_day
        tokenizer_path = read_model_folder(config.model_path).tokenizer_path if limit else path
        return cls(path, limit, tokenizer_path)

    def spend(self, texts: Sequence[str]) -> None:
        """Counts the tokens of texts that are about to be sent.

        Raises:
            EmbeddingFault: They would go beyond the day's budget; nothing is counted.
        """
        if self._limit is None or self._tokenizer is None:
            return
        tokens = sum(len(each) for each in self._tokenizer.encode_batch_fast(list(texts)))
        today = datetime.now(UTC).date().isoformat()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            day, _, spent = file.read().partition(" ")
            before = int(spent) if day == today else 0
            if before + tokens > self._limit:
                raise EmbeddingFault(
                    f"{before} of the {self._limit} tokens of this day's budget are spent, and the next "
                    f"texts have {tokens}: run again tomorrow (UTC), or set "
                    "HEADWATER_RECIPE__EMBEDDER__ENDPOINT__TOKENS_PER_DAY higher"
                )
            file.seek(0)
            file.truncate()
            file.write(f"{today} {before + tokens}")
