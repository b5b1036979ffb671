"""Services left running while files arrive, change and go: all of it ends in the index, and nothing grows.

`make soak MINUTES=60`; the log that it prints is what docs/operations.md quotes.
"""

import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import dagster as dg
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from free_ports import free_ports

from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.ask import open_ask_service
from orchestration.services import lifecycle
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings

MINUTES = int(os.environ.get("HEADWATER_SOAK_MINUTES", "0"))
UNFINISHED = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
WORDS = [word for word in (Path(__file__).parents[2] / "LICENSE").read_text().split() if word.isalpha()]


@pytest.fixture
def settings(module_folder: Path) -> Iterator[Settings]:
    (module_folder / "docs").mkdir()
    web_port, thrift_port = free_ports(2)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEADWATER_WEB_PORT", str(web_port))
        environment.setenv("HEADWATER_THRIFT_PORT", str(thrift_port))
        settings = Settings(home=module_folder / "home")
        SourceRegistry(settings.sources_file).add(Source(name="docs", location=str(module_folder / "docs")))
        yield settings
        lifecycle.stop_services(settings, print)


def write(folder: Path, number: int, random_: random.Random) -> None:
    body = " ".join(" ".join(random_.sample(WORDS, k=100)) for _ in range(2))
    (folder / f"document {number}.md").write_text(f"# Document {number}\n\nThis is what it says: {body}.\n")


def memory_mb(settings: Settings) -> dict[str, int]:
    found = {status.service: status.pid for status in lifecycle.service_statuses(settings)}
    return {
        name: round(psutil.Process(found[name] or 0).memory_info().rss / 1e6)
        for name in ("code", "web", "daemon")
    }


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 1800)
@pytest.mark.skipif(not MINUTES, reason="an hour: `make soak`")
def test_an_hour_of_changes(settings: Settings, module_folder: Path) -> None:
    folder, random_, number = module_folder / "docs", random.Random(0), 20
    for each in range(number):
        write(folder, each, random_)
    lifecycle.start_services(settings, print)
    began, samples = time.monotonic(), []
    while time.monotonic() - began < 60 * MINUTES:
        write(folder, number, random_)
        number += 1
        there = sorted(folder.iterdir())
        random_.choice(there).unlink()
        write(folder, int(random_.choice(there).stem.split()[1]), random_)
        time.sleep(60)
        samples.append(memory_mb(settings))
        with dagster_home_instance(settings) as instance:
            runs = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
        minute = round((time.monotonic() - began) / 60)
        print(f"minute {minute}: {len(there)} files, {runs} runs, MB {samples[-1]}", flush=True)
    wanted = {path.name for path in folder.iterdir()}
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline and served(settings) != wanted:
        time.sleep(10)
    assert served(settings) == wanted
    with dagster_home_instance(settings) as instance:
        while instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) and time.monotonic() < deadline:
            time.sleep(5)
        assert instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) == 0
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert failed == []
    early = samples[min(5, len(samples) // 2)]
    for name, size_mb in samples[-1].items():
        assert size_mb <= early[name] * 1.2 + 50, (name, samples)


def served(settings: Settings) -> set[str]:
    service = open_ask_service(settings)
    live = service.index.live()
    if live is None:
        return set()
    uris = service.index.rows_at(live)["uri"].to_pylist()
    return {Path(unquote(urlparse(uri).path)).name for uri in uris}
