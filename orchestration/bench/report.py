"""The result of a bench: figures, ratios between them, and the machine on which they were measured."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import psutil
from rich.table import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_VECTOR_FLAGS = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
)
"""Processor flags, as Linux names them, that decide how fast vectors and matrices are multiplied."""


def bench_machine_description() -> dict[str, str | int | float]:
    """Describes this machine: processor, cores, memory and system."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    said = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    has = set(said.get("flags", "").split())
    return {
        "cpu": said.get("model name") or platform.processor() or platform.machine(),
        "vectors": " ".join(flag for flag in _VECTOR_FLAGS if flag in has),
        "cores": psutil.cpu_count() or os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": round(psutil.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class BenchedProcess:
    """The output of a process, and the time and memory that it took.

    Attributes:
        output: Its standard output.
        seconds: Wall time from its start to its end, with interpreter, imports and JVM.
        cpu_s: Processor seconds of the process and its children, sampled ten times per second.
        peak_mb: Peak resident memory of the process and its children together, in MB; shared pages count
            twice.
    """

    output: str
    seconds: float
    cpu_s: float
    peak_mb: float


def run_benched(module: str, *arguments: str, **environment: str) -> BenchedProcess:
    """Runs `python -m module` in a new process, and measures its time and memory, as `measure_process`."""
    return measure_process([sys.executable, "-m", module, *arguments], environment)


def measure_process(command: Sequence[str], environment: Mapping[str, str]) -> BenchedProcess:
    """Runs a command, and measures its time and memory.

    Args:
        command: The program and its arguments.
        environment: Variables that are set beside those of this process.

    Raises:
        RuntimeError: The process failed; the message quotes the end of its standard error.
    """
    began = time.perf_counter()
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    resident: list[int] = [0]
    cpu_s: dict[int, float] = {}
    watcher = threading.Thread(target=_watch, args=(psutil.Process(child.pid), resident, cpu_s), daemon=True)
    watcher.start()
    output, errors = child.communicate()
    seconds = time.perf_counter() - began
    watcher.join()
    if child.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{errors[-2000:]}")
    return BenchedProcess(output, seconds, sum(cpu_s.values()), max(resident) / 1e6)


def _watch(process: psutil.Process, resident: list[int], cpu_s: dict[int, float]) -> None:
    """Samples a process and its children until it ends: resident bytes together, processor time of each."""
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        with contextlib.suppress(psutil.NoSuchProcess):
            together = 0
            for each in (process, *process.children(recursive=True)):
                used = each.cpu_times()
                cpu_s[each.pid] = used.user + used.system
                together += each.memory_info().rss
            resident.append(together)
        time.sleep(0.1)


@dataclass(frozen=True)
class BenchResult:
    """The result of one bench.

    Attributes:
        bench: Its name, as in `headwater bench NAME`.
        figures: The measured values by name; the name ends with the unit.
        ratios: Ratios between figures of this run.
        machine: Where it ran; see `bench_machine_description`. Its load average says whether the bench had
            the cores to itself.
    """

    bench: str
    figures: dict[str, float]
    ratios: dict[str, float]
    machine: dict[str, str | int | float] = field(default_factory=bench_machine_description)

    def to_json(self) -> str:
        """Returns one JSON object: bench, machine, figures, ratios."""
        return json.dumps(asdict(self))

    def __rich__(self) -> Table:
        """Returns a table for the terminal."""
        where = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        table = Table("figure", title=f"bench {self.bench}", caption=where)
        table.add_column("value", justify="right")
        for name, value in (self.figures | self.ratios).items():
            table.add_row(name, f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}")
        return table


Row = TypeVar("Row", bound="DataclassInstance")


@dataclass(frozen=True)
class BenchTable(Generic[Row]):
    """The result of a bench that compares several forms; printed as a table, or as one JSON object.

    Attributes:
        bench: Its name, as in `headwater bench NAME`.
        rows: A row each, all of one dataclass.
        unmeasured: The forms that this machine does not compute in, with the reason.
        machine: Where it ran; see `bench_machine_description`.
    """

    bench: str
    rows: list[Row]
    unmeasured: dict[str, str]
    machine: dict[str, str | int | float] = field(default_factory=bench_machine_description)

    def to_json(self) -> str:
        """Returns one JSON object: bench, rows, unmeasured, machine."""
        return json.dumps(asdict(self))

    def __rich__(self) -> Table:
        """Returns a table for the terminal."""
        notes = [f"{name}: {reason}" for name, reason in self.unmeasured.items()]
        notes.append(", ".join(f"{name} {value}" for name, value in self.machine.items()))
        table = Table(title=f"bench {self.bench}", caption="\n".join(notes))
        cells = [asdict(row) for row in self.rows]
        for name, value in cells[0].items():
            table.add_column(name.replace("_", " "), justify="left" if isinstance(value, str) else "right")
        for row in cells:
            table.add_row(
                *(f"{each:,.4g}" if isinstance(each, int | float) else each or "" for each in row.values())
            )
        return table
