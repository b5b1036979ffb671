"""The doctor finds what is missing and names a cure for each."""

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inference.engines.generator import EngineConfig
from orchestration.configured_parts import (
    check_embedding_endpoint,
    check_generator,
    check_lake,
    check_reranker,
)
from orchestration.operations import doctor
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.config import EmbedderConfig, EmbeddingEndpointConfig
from retrieval.rerank.reranker import RerankerConfig


@pytest.fixture
def settings(module_folder: Path) -> Settings:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return Settings(
            home=module_folder / "home", web_port=one.getsockname()[1], thrift_port=other.getsockname()[1]
        )


def found(checks: list[doctor.DoctorCheck], name: str) -> doctor.DoctorCheck:
    return next(check for check in checks if check.name == name)


def test_all_is_well_here(settings: Settings) -> None:
    checks = doctor.run_doctor(settings)
    assert [check for check in checks if not check.ok or check.cure] == []
    assert {"Java", "Delta jars", "Embedder", "State folder", "Disk", "Web port", "PostgreSQL"} <= {
        check.name for check in checks
    }
    assert not settings.home.exists(), "a check made a state folder"


def test_every_fault_has_its_cure(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "no-java"))
    monkeypatch.setattr(doctor, "JARS", tmp_path / "no-jars")
    monkeypatch.setattr(doctor, "MIN_DISK_GIB", 10**9)
    monkeypatch.setattr(doctor, "CHECKED_PACKAGES", ("no-such-package",))
    settings.recipe.embedder = EmbedderConfig(model=tmp_path / "no-model")
    settings.home = tmp_path / "a-file" / "home"
    (tmp_path / "a-file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings.web_port = taken.getsockname()[1]
        checks = doctor.run_doctor(settings)
    bad = {check.name: check.cure for check in checks if not check.ok}
    assert set(bad) == {
        "Java",
        "no-such-package",
        "Delta jars",
        "Embedder",
        "State folder",
        "Disk",
        "Web port",
        "PostgreSQL",
    }
    assert all(bad.values())
    assert "HEADWATER_WEB_PORT" in bad["Web port"]


def test_locked_versions() -> None:
    text = "delta-spark==4.4.0 \\\n    --hash=sha256:ab\nmlx==1 ; sys_platform == 'darwin' \\\n    --hash=x\n"
    assert doctor.doctor_locked_versions(text) == {"delta-spark": "4.4.0", "mlx": "1"}


class _Models(BaseHTTPRequestHandler):
    """An OpenAI-compatible service with one model, which takes one key."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Bearer right"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "served"}]}).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Models) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_an_endpoint_is_asked_whether_it_has_the_model(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(url: str, model: str, key: str | None) -> doctor.DoctorCheck:
        monkeypatch.setenv("KEY_OF_TEST", key or "")
        [check] = check_generator(EngineConfig(endpoint=url, endpoint_model=model, api_key_env="KEY_OF_TEST"))
        assert bool(check.cure) != check.ok
        return check

    assert asked(service, "served", "right").ok
    assert "it has served" in asked(service, "other", "right").found
    assert "refuses the key (401)" in asked(service, "served", "wrong").found
    assert asked(service, "served", None).cure == "set KEY_OF_TEST to the key"
    away = asked("http://user:secret@127.0.0.1:9/v1", "served", "right")
    assert "does not answer" in away.found
    assert "secret" not in away.found
    assert "HEADWATER_GENERATOR__ENDPOINT" in away.cure


def test_a_wrong_generator_reranker_and_endpoint_have_their_cures(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "no model").mkdir()
    [generator] = check_generator(EngineConfig(model=tmp_path / "no model"))
    assert not generator.ok
    assert "config.json" in generator.found
    assert "HEADWATER_GENERATOR__MODEL" in generator.cure
    assert list(check_generator(EngineConfig())) == []

    wrong = settings.model_copy(update={"reranker": RerankerConfig(model=tmp_path / "no model")})
    [reranker] = check_reranker(wrong)
    assert not reranker.ok
    assert "HEADWATER_RERANKER__MODEL" in reranker.cure
    wrong = settings.model_copy(update={"reranker": RerankerConfig(endpoint="http://127.0.0.1:9/rerank")})
    [reranker] = check_reranker(wrong)
    assert not reranker.ok
    assert "HEADWATER_RERANKER__ENDPOINT" in reranker.cure
    assert list(check_reranker(settings)) == []

    endpoint = EmbeddingEndpointConfig(url="http://127.0.0.1:9", model="m")
    recipe = settings.recipe.model_copy(update={"embedder": EmbedderConfig(endpoint=endpoint)})
    [embedder] = check_embedding_endpoint(settings.model_copy(update={"recipe": recipe}))
    assert not embedder.ok
    assert "HEADWATER_RECIPE__EMBEDDER__ENDPOINT__URL" in embedder.cure


def test_a_lake_that_lost_a_table_is_found(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    assert check_lake(settings).found.endswith("(not made yet)")
    open_configured_lake(settings)
    assert check_lake(settings).ok
    table = Path(settings.lake_root) / "silver" / "documents"
    (table / "_delta_log" / f"{0:020}.json").write_text("{")
    broken = check_lake(settings)
    assert not broken.ok
    assert "silver.documents in " in broken.found
    shutil.rmtree(table)
    lost = check_lake(settings)
    assert not lost.ok
    assert lost.found.endswith("lacks silver.documents")
    assert "headwater restore" in lost.cure
