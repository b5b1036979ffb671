"""What a foreign page can send to the web UI does nothing; what its own pages send works."""

import base64
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from pydantic import SecretStr
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from orchestration.services.web_guard import WebAccess, WebGuard

HERE = "http://127.0.0.1:3000"
QUERY = {"query": "{ __typename }"}
WIPE = 'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["a"]}}]) { __typename } }'
EVENT = dg.AssetKey("a")


@pytest.fixture(scope="module")
def instance(module_folder: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(module_folder)) as instance:
        yield instance


def client(instance: dg.DagsterInstance, password: str | None = None, base_url: str = HERE) -> TestClient:
    context = WorkspaceProcessContext(instance, EmptyWorkspaceTarget())
    access = WebAccess.on_loopback(3000, ["lake.example"], SecretStr(password) if password else None)
    return TestClient(WebGuard(create_app_from_workspace_process_context(context), access), base_url)


@pytest.fixture(scope="module")
def browser(instance: dg.DagsterInstance) -> TestClient:
    return client(instance)


@pytest.fixture
def reported(instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """An instance that knows one asset."""
    instance.report_runless_asset_event(dg.AssetMaterialization(EVENT))
    return instance


def test_its_own_pages_work(browser: TestClient) -> None:
    assert browser.post("/graphql", json=QUERY, headers={"Origin": HERE}).json()["data"]["__typename"]
    assert browser.post("/graphql?op=Version", json=QUERY, headers={"Origin": HERE}).status_code == 200
    assert browser.get("/", headers={"Accept": "text/html"}).status_code == 200
    assert "graphiql" in browser.get("/graphql", headers={"Accept": "text/html"}).text.lower()
    assert browser.get("/server_info").json()["dagster_version"]
    with browser.websocket_connect(
        "ws://127.0.0.1:3000/graphql", ["graphql-ws"], headers={"Origin": HERE}
    ) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}


@pytest.mark.parametrize("name", ["localhost", "[::1]", "lake.example", "LOCALHOST"])
def test_every_name_of_this_machine_and_those_that_were_set_are_answered(
    instance: dg.DagsterInstance, name: str
) -> None:
    answer = client(instance).post("/graphql", json=QUERY, headers={"Host": f"{name}:3000"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example:3000", "127.0.0.1", "127.0.0.1:3001", "", "127.0.0.1:3000.evil"]
)
@pytest.mark.parametrize("path", ["/", "/graphql", "/server_info", "/logs/a", "/assets"])
def test_a_name_that_was_rebound_reads_nothing(browser: TestClient, host: str, path: str) -> None:
    answer = browser.get(path, headers={"Host": host})
    assert answer.status_code == 403
    assert "HEADWATER_WEB_HOSTS" in answer.text


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3001", f"{HERE}.evil"])
def test_a_page_of_another_site_changes_nothing(browser: TestClient, origin: str) -> None:
    assert browser.post("/graphql", json=QUERY, headers={"Origin": origin}).status_code == 403
    with (
        pytest.raises(WebSocketDisconnect),
        browser.websocket_connect("ws://127.0.0.1:3000/graphql", ["graphql-ws"], headers={"Origin": origin}),
    ):
        pass


def test_nothing_changes_by_get(browser: TestClient, reported: dg.DagsterInstance) -> None:
    for accept in ("*/*", "application/json", "text/html"):
        answer = browser.get("/graphql", params={"query": WIPE}, headers={"Accept": accept})
        assert answer.status_code == (200 if accept == "text/html" else 405)
        assert reported.get_latest_materialization_event(EVENT) is not None
    assert browser.get("/report_asset_materialization/b").status_code in (404, 405, 200)
    assert reported.get_latest_materialization_event(dg.AssetKey("b")) is None


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/graphql", ""],
)
def test_what_a_form_can_send_changes_nothing(
    browser: TestClient, reported: dg.DagsterInstance, content_type: str
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    asked = browser.post(f"/graphql?query={WIPE}", content=WIPE, headers=headers)
    told = browser.post("/report_asset_materialization/c?description=x", headers=headers)
    assert (asked.status_code, told.status_code) == (415, 415)
    assert reported.get_latest_materialization_event(EVENT) is not None
    assert reported.get_latest_materialization_event(dg.AssetKey("c")) is None


def test_a_post_with_parameters_in_its_address_is_refused(browser: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert browser.post("/graphql?query={version}", content="{}", headers=headers).status_code == 400
    assert browser.post("/report_asset_check/a?passed=true", json={}).status_code == 400
    assert browser.delete("/graphql").status_code == 405


def test_a_report_by_json_works(browser: TestClient, reported: dg.DagsterInstance) -> None:
    answer = browser.post("/report_asset_materialization/d", json={"description": "by hand"})
    assert answer.status_code == 200
    assert reported.get_latest_materialization_event(dg.AssetKey("d")) is not None


def test_a_password_is_asked_for_on_every_route(instance: dg.DagsterInstance) -> None:
    browser = client(instance, "s3cret")
    for path in ("/", "/graphql", "/server_info", "/vendor/graphiql/graphiql.min.css"):
        answer = browser.get(path, headers={"Accept": "text/html"})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert "s3cret" not in answer.text
    with (
        pytest.raises(WebSocketDisconnect),
        browser.websocket_connect("ws://127.0.0.1:3000/graphql", ["graphql-ws"]),
    ):
        pass
    wrong = base64.b64encode(b"headwater:s3cre").decode()
    assert browser.get("/server_info", headers={"Authorization": f"Basic {wrong}"}).status_code == 401
    assert browser.get("/server_info", auth=("headwater", "s3cret")).status_code == 200


def test_every_answer_has_security_headers(browser: TestClient) -> None:
    for answer in (browser.get("/"), browser.get("/server_info"), browser.get("/", headers={"Host": "evil"})):
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
