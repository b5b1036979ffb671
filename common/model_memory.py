"""Keeps the models of a process within one budget of memory: the least recently used one goes first."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar
from weakref import WeakSet

logger = logging.getLogger(__name__)

_MB = 1_000_000
T = TypeVar("T")


class ModelMemoryError(RuntimeError):
    """A model does not fit into the memory that models may take; the message says how much it needs."""


class EvictableModel(Generic[T]):
    """A model that is loaded when it is used, and may be given up when it is not.

    Attributes:
        name: What it is called in messages.
        size_bytes: The memory that it takes when loaded.
    """

    def __init__(self, memory: "ModelMemory", name: str, size_bytes: int, load: Callable[[], T]) -> None:
        self.name, self.size_bytes = name, size_bytes
        self._memory, self._load = memory, load
        self._value: T | None = None
        self._users: list[int] = []
        self._used_at = 0

    @contextmanager
    def in_use(self) -> Iterator[T]:
        """Yields the model, which stays loaded until the block ends; several threads may use it at once.

        Where other threads hold what would have to go, it waits for them.

        Raises:
            ModelMemoryError: It does not fit, or not beside what this thread is using.
        """
        thread = threading.get_ident()
        with self._memory._changed:
            while self._value is None:
                if self._memory._has_room_for(self, thread):
                    self._value = self._load()
                    self._memory._loaded.add(self)
                    logger.info("loaded %s: %s", self.name, self._memory)
            self._users.append(thread)
            self._used_at = next(self._memory._clock)
            value = self._value
        try:
            yield value
        finally:
            with self._memory._changed:
                self._users.remove(thread)
                self._memory._changed.notify_all()


class ModelMemory:
    """The models of a process. Those whose owner is gone do not count.

    Attributes:
        budget_bytes: What loaded models may take together; None for no limit. A model takes more for a moment
            while it is loaded, and texts on their way through it come on top.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self._loaded: WeakSet[EvictableModel[Any]] = WeakSet()
        self._changed = threading.Condition()
        self._clock = itertools.count()

    def __str__(self) -> str:
        """How many models there are and what they take, for messages."""
        budget = "" if self.budget_bytes is None else f" of {self.budget_bytes / _MB:,.0f}"
        return f"{len(self._loaded)} models take {self.loaded_bytes / _MB:,.0f}{budget} MB"

    @property
    def loaded_bytes(self) -> int:
        """What the loaded models take together."""
        with self._changed:
            return sum(each.size_bytes for each in self._loaded)

    def model(self, name: str, size_bytes: int, load: Callable[[], T]) -> EvictableModel[T]:
        """Returns a model that is loaded when it is used.

        Raises:
            ModelMemoryError: It does not fit even alone.
        """
        if self.budget_bytes is not None and size_bytes > self.budget_bytes:
            raise ModelMemoryError(
                f"{name} takes {size_bytes / _MB:,.0f} MB, and all models may take "
                f"{self.budget_bytes / _MB:,.0f}: set HEADWATER_MODEL_MEMORY_MB higher, or use a smaller one"
            )
        return EvictableModel(self, name, size_bytes, load)

    def _has_room_for(self, model: EvictableModel[T], thread: int) -> bool:
        """Returns whether a model fits; else gives one up that nobody uses, or waits until one is free."""
        if self.budget_bytes is None or self.loaded_bytes + model.size_bytes <= self.budget_bytes:
            return True
        held = [each for each in self._loaded if each._users]
        if idle := [each for each in self._loaded if not each._users]:
            oldest = min(idle, key=lambda each: each._used_at)
            oldest._value = None
            self._loaded.remove(oldest)
            logger.info("gave up %s: %s", oldest.name, self)
        elif not held or any(thread in each._users for each in held):
            raise ModelMemoryError(
                f"{model.name} takes {model.size_bytes / _MB:,.0f} MB and does not fit beside "
                f"{' and '.join(each.name for each in held)}, which are in use, into "
                f"{self.budget_bytes / _MB:,.0f} MB: set HEADWATER_MODEL_MEMORY_MB higher"
            )
        else:
            self._changed.wait()
        return False


MODEL_MEMORY = ModelMemory()
"""That of this process. Its budget is set where the process reads its settings."""


def weights_bytes(folder: Path, bytes_per_weight: int) -> int:
    """Returns what the weights of a transformers folder take in memory, by the headers of its files.

    Args:
        folder: The folder, with safetensors; of other files the sizes count.
        bytes_per_weight: Of the number format that they are loaded in.
    """
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return sum(each.stat().st_size for each in folder.glob("*.bin"))
    weights = 0
    for file in files:
        with safe_open(file, "numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                weights += size
    return weights * bytes_per_weight
