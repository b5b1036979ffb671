"""After set-up nothing needs the network, and nothing tries to use it."""

import os
import subprocess
import sys

import pytest
from cut_off import cut_off

from orchestration.environment.offline import OFFLINE_SWITCHES

pytestmark = pytest.mark.network


def test_the_network_is_cut() -> None:
    script = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"
    assert "unreachable" in cut_off([sys.executable, "-c", script]).stderr
    loopback = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    )
    assert cut_off([sys.executable, "-c", loopback]).returncode == 0


def test_the_embedder_needs_no_network() -> None:
    script = """
import orchestration
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedder import Embedder
print(Embedder(EmbedderConfig()).encode(["Where is it said?"]).shape)
"""
    done = cut_off([sys.executable, "-c", script])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 384)"


def test_the_definitions_load_without_the_network(tmp_path: pytest.TempPathFactory) -> None:
    environment = os.environ | {"HEADWATER_HOME": f"{tmp_path}/home"}
    done = cut_off([sys.executable, "-c", "import orchestration.definitions"], environment)
    assert done.returncode == 0, done.stderr


def test_switches_are_set_before_any_library_is_imported() -> None:
    script = """
import sys
import orchestration, os
imported = {name.partition(".")[0] for name in sys.modules}
print(imported & {"dagster", "great_expectations", "torch", "pyspark", "mlflow"})
names = ("GX_ANALYTICS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_OFFLINE")
print(*(os.environ[name] for name in names))
"""
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE_SWITCHES}
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert said.stdout.splitlines() == ["set()", "false true 1"]
    # What a user has set stays.
    said = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment | {"HF_HUB_OFFLINE": "0"},
    )
    assert said.stdout.splitlines()[1] == "false true 0"
