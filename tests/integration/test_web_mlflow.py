"""MLflow's pages in the web UI: they show the registry, behind the guard, and change nothing."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from starlette.testclient import TestClient

from orchestration.services.web_server import build_web_application
from orchestration.settings import Settings
from training.place import TrainingPlace
from training.registry import mlflow_mirror
from training.registry.lineage import ModelLineage

HERE = "http://127.0.0.1:3000"
API = "/mlflow/ajax-api/2.0/mlflow"


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose registry has a version, which MLflow follows."""
    from tiny_embedders import make_tiny_embedder

    home = tmp_path_factory.mktemp("home")
    place = Settings(home=home).training_place
    base = make_tiny_embedder(tmp_path_factory.mktemp("base"))

    def write(folder: Path) -> None:
        shutil.copytree(base, folder, dirs_exist_ok=True)

    version = place.registry.add(
        "embedder",
        ModelLineage(
            dataset="rivers@1234",
            dataset_digest="ab" * 32,
            base="all-MiniLM-L6-v2",
            base_digest="cd" * 32,
            code_version="1",
            run_id="embedder-1",
            settings={},
        ),
        {"validation_ndcg@10": 0.5},
        1.0,
        write,
        lambda version: "",
    )
    curves = {version.lineage.run_id: {"loss": [(1, 3.0), (2, 2.5)]}}
    assert mlflow_mirror.follow_in_mlflow(place.registry, "embedder", place.mlflow_uri, curves) is None
    return home


def client(instance: dg.DagsterInstance, home: Path, **settings: object) -> TestClient:
    context = WorkspaceProcessContext(instance, EmptyWorkspaceTarget())
    given = {"home": home, "web_port": 3000} | settings
    return TestClient(build_web_application(Settings.model_validate(given), context), HERE)


@pytest.fixture(scope="module")
def browser(instance: dg.DagsterInstance, home: Path) -> TestClient:
    return client(instance, home)


def test_the_pages_and_what_they_ask_for_are_served(browser: TestClient) -> None:
    assert browser.get("/mlflow", follow_redirects=False).headers["Location"] == "/mlflow/"
    page = browser.get("/mlflow/")
    assert page.status_code == 200
    assert "<title>MLflow</title>" in page.text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    script = page.text.split('<script defer="defer" src="')[1].split('"')[0]
    assert "javascript" in browser.get(f"/mlflow/{script}").headers["Content-Type"]
    versions = browser.get(f"{API}/model-versions/search", params={"filter": "name='embedder'"}).json()
    [version] = versions["model_versions"]
    assert {"headwater.digest"} < {tag["key"] for tag in version["tags"]}
    experiment = browser.get(f"{API}/experiments/get-by-name", params={"experiment_name": "headwater"}).json()
    asked = {"experiment_ids": [experiment["experiment"]["experiment_id"]]}
    [run] = browser.post(f"{API}/runs/search", json=asked, headers={"Origin": HERE}).json()["runs"]
    params = {"run_id": run["info"]["run_id"], "metric_key": "loss"}
    history = browser.get(f"{API}/metrics/get-history", params=params).json()
    assert [(each["step"], each["value"]) for each in history["metrics"]] == [(1, 3.0), (2, 2.5)]


def test_nothing_is_changed_or_handed_out(browser: TestClient, home: Path) -> None:
    before = browser.get(f"{API}/registered-models/search").json()
    for method, path, body in (
        ("POST", "registered-models/create", {"name": "evil"}),
        ("POST", "experiments/create", {"name": "evil"}),
        ("POST", "runs/delete", {"run_id": "1"}),
        ("POST", "gateway-proxy", {"gateway_path": "api/2.0/endpoints/"}),
        ("POST", "runs/search/../delete", {"run_id": "1"}),
    ):
        assert browser.request(method, f"{API}/{path}", json=body).status_code == 403, path
    for method in ("PATCH", "DELETE", "PUT"):
        answer = browser.request(method, f"{API}/registered-models/delete", json={"name": "embedder"})
        assert answer.status_code == 405
    # No change by GET, and no file of a model or of this machine.
    for path in (
        f"{API}/registered-models/create?name=evil",
        f"{API}/gateway-proxy?gateway_path=x",
        "/mlflow/get-artifact?path=model.safetensors&run_uuid=1",
        "/mlflow/model-versions/get-artifact?path=headwater.json&name=embedder&version=1",
        f"{API}/model-versions/get-download-uri?name=embedder&version=1",
        f"{API}/logged-models/m-1/artifacts/files?artifact_file_path=a",
        "/mlflow/ajax-api/2.0/mlflow-artifacts/artifacts",
        "/mlflow/static-files/..%2f..%2f..%2fversion.py",
        "/mlflow/ajax-api/3.0/jobs/1",
    ):
        assert browser.get(path).status_code in (403, 404), path
    assert browser.get("/mlflow/graphql", params={"query": "{ test }"}).status_code == 405
    assert browser.get(f"{API}/registered-models/search").json() == before


def test_the_guard_stands_before_them(instance: dg.DagsterInstance, home: Path) -> None:
    browser = client(instance, home, web_password="s3cret", web_path_prefix="/lake")
    known = ("headwater", "s3cret")
    search = f"/lake{API}/registered-models/search"
    for path in ("/lake/mlflow/", search, "/lake/mlflow/static-files/favicon.ico"):
        assert browser.get(path).status_code == 401
        assert browser.get(path, headers={"Host": "evil"}, auth=known).status_code == 403
        assert browser.get(path, auth=known).status_code == 200
    runs = f"/lake{API}/runs/search"
    evil = {"Origin": "http://evil.example"}
    assert browser.post(runs, json={}, headers=evil, auth=known).status_code == 403
    assert browser.post(runs, content="{}", auth=known).status_code == 415


def test_without_the_extra_or_with_a_server_of_its_own_there_are_no_pages(
    instance: dg.DagsterInstance, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = client(instance, home, mlflow_uri="http://127.0.0.1:5000")
    assert "MLflow" not in elsewhere.get("/mlflow/", headers={"Accept": "text/html"}).text
    assert elsewhere.get(f"{API}/registered-models/search").headers["Content-Type"].startswith("text/html")
    assert TrainingPlace(home, home, home).mlflow_uri == f"sqlite:///{home}/mlflow.db"
