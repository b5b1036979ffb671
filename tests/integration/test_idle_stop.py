"""The embedded server stops itself when nobody uses it, and is there for whoever comes meanwhile."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.store.embedded_server import EmbeddedServerConfig
from retrieval.store.postgres import Postgres, PostgresConfig

IDLE_S = 1.0
CONFIG = PostgresConfig(server=EmbeddedServerConfig(shared_buffers_mb=16, idle_stop_s=IDLE_S))


@pytest.fixture
def state() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="idle state ") as folder:
        yield Path(folder)
        Postgres(Path(folder), CONFIG).remove()


def ask(postgres: Postgres) -> None:
    with postgres.owner() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def runs(postgres: Postgres) -> bool:
    assert postgres.server is not None
    return postgres.server.running()


def wait_until_stopped(postgres: Postgres) -> float:
    begun_s = time.monotonic()
    while runs(postgres):
        assert time.monotonic() - begun_s < 60, "it did not stop"
        time.sleep(0.05)
    return time.monotonic() - begun_s


@pytest.mark.timeout(200)
def test_nobody_uses_it(state: Path) -> None:
    postgres = Postgres(state, CONFIG)
    ask(postgres)
    time.sleep(3 * IDLE_S)
    assert runs(postgres)  # a process that holds connections uses it
    ask(postgres)
    postgres.close()
    wait_until_stopped(postgres)
    begun_s = time.monotonic()
    ask(postgres)
    print(f"again after {time.monotonic() - begun_s:.1f} s")
    # A process that is killed gives back what it held.
    script = (
        "import os, sys; from pathlib import Path; from retrieval.store.postgres import Postgres\n"
        "p = Postgres(Path(sys.argv[1]))\n"
        "with p.owner() as c: c.execute('SELECT 1')\n"
        "os.kill(os.getpid(), 9)"
    )
    postgres.close()
    killed = subprocess.run([sys.executable, "-c", script, str(state)], check=False)
    assert killed.returncode == -9
    wait_until_stopped(postgres)


@pytest.mark.timeout(200)
def test_whoever_comes_while_it_stops_is_served(state: Path) -> None:
    first = Postgres(state, CONFIG)
    ask(first)
    first.close()
    for wait_s in (0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4):  # before, while and after it stops
        time.sleep(wait_s)
        coming = Postgres(state, CONFIG)
        ask(coming)
        coming.close()
    wait_until_stopped(first)
