"""What a foreign page can send to the web UI does nothing; what its own pages send works."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from pydantic import ValidationError
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from orchestration.services.lifecycle import start_services
from orchestration.services.processes import ServiceError
from orchestration.services.web_guard import WebAccess
from orchestration.services.web_server import build_web_application
from orchestration.settings import Settings

HERE = "http://127.0.0.1:3000"
QUERY = {"query": "{ __typename }"}
WIPE = 'mutation { wipeAssets(assetPartitionRanges: [{assetKey: {path: ["a"]}}]) { __typename } }'
EVENT = dg.AssetKey("a")


@pytest.fixture(scope="module")
def instance(module_folder: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(module_folder)) as instance:
        yield instance


def client(
    instance: dg.DagsterInstance, password: str | None = None, base_url: str = HERE, **settings: object
) -> TestClient:
    context = WorkspaceProcessContext(instance, EmptyWorkspaceTarget())
    given = {"web_port": 3000, "web_hosts": ["lake.example"], "web_password": password} | settings
    return TestClient(build_web_application(Settings.model_validate(given), context), base_url)


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


@pytest.mark.parametrize("prefix", ["", "/some/lake"])
@pytest.mark.parametrize(
    "path",
    ["/graphql%0A", "/graphql%0D", "/graphql/%0A", "/graphql%00", "/%0Agraphql", "//graphql", "/graphql/"],
)
def test_no_spelling_of_the_path_changes_anything_by_get(
    instance: dg.DagsterInstance, reported: dg.DagsterInstance, prefix: str, path: str
) -> None:
    """Routes match a path that ends in a line break, which the guard took for a path of another kind."""
    browser = client(instance, web_path_prefix=prefix)
    asked = browser.get(f"{prefix}{path}", params={"query": WIPE})
    assert asked.status_code == 400 if "%" in path else "wipeAssets" not in asked.text
    browser.head(f"{prefix}{path}", params={"query": WIPE})
    assert reported.get_latest_materialization_event(EVENT) is not None


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


PREFIX = "/some/lake"


def test_a_path_prefix_holds_for_pages_their_parts_queries_and_sockets(instance: dg.DagsterInstance) -> None:
    browser = client(instance, web_path_prefix=PREFIX)
    page = browser.get(f"{PREFIX}/assets", headers={"Accept": "text/html"})
    assert page.status_code == 200
    parts = set(re.findall(r'(?:src|href)="(/[^"]+)"', page.text))
    assert any(part.endswith(".js") for part in parts)
    for part in parts:
        assert part.startswith(f"{PREFIX}/")
        assert "javascript" in browser.get(part).headers["Content-Type"] or not part.endswith(".js")
    assert browser.get("/", follow_redirects=False).headers["Location"] == PREFIX
    assert browser.get(f"{PREFIX}/server_info").json()["dagster_version"]
    assert browser.post(f"{PREFIX}/graphql", json=QUERY).json()["data"]["__typename"]
    with browser.websocket_connect(f"ws://127.0.0.1:3000{PREFIX}/graphql", ["graphql-ws"]) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}


def test_the_guard_holds_under_a_path_prefix(
    instance: dg.DagsterInstance, reported: dg.DagsterInstance
) -> None:
    browser = client(instance, "s3cret", web_path_prefix=PREFIX)
    url, known = f"{PREFIX}/graphql", ("headwater", "s3cret")
    for path in (PREFIX, f"{PREFIX}/", url, f"{PREFIX}/data_docs/silver.documents/index.html"):
        assert browser.get(path).status_code == 401
        assert browser.get(path, headers={"Host": "evil"}, auth=known).status_code == 403
    assert browser.get(url, params={"query": WIPE}, auth=known).status_code == 405
    assert browser.post(f"{url}?query={WIPE}", content=WIPE, auth=known).status_code == 415
    assert browser.post(url, json=QUERY, headers={"Origin": "null"}, auth=known).status_code == 403
    assert browser.post(url, json=QUERY, auth=known).status_code == 200
    assert reported.get_latest_materialization_event(EVENT) is not None


@pytest.mark.parametrize(
    "prefix", ["lake", "/lake/", "//a", "/..", "/a/../b", "/a b", "/a\n", '/"><script>', "/"]
)
def test_what_is_no_path_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="give a path such as /lake"):
        Settings.model_validate({"web_path_prefix": prefix})


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "2001:db8::7"])
def test_without_a_password_other_machines_reach_nothing(
    instance: dg.DagsterInstance, tmp_path: Path, address: str
) -> None:
    settings = Settings.model_validate({"home": tmp_path / "home", "web_address": address})
    with pytest.raises(ServiceError, match=f"{re.escape(address)}.*set HEADWATER_WEB_PASSWORD"):
        start_services(settings, print)
    assert not settings.home.exists()
    with pytest.raises(ServiceError, match="HEADWATER_WEB_PASSWORD"):
        client(instance, web_address=address)
    browser = client(instance, "s3cret", web_address=address)
    assert browser.get("/server_info").status_code == 401
    assert browser.get("/server_info", auth=("headwater", "s3cret")).status_code == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_on_loopback_the_password_is_a_choice(address: str) -> None:
    assert WebAccess.of_settings(Settings.model_validate({"web_address": address})).password is None


def test_an_empty_password_is_none_that_anybody_could_give() -> None:
    with pytest.raises(ValidationError, match="it is empty"):
        Settings.model_validate({"web_password": ""})


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ({}, {"127.0.0.1:3000", "localhost:3000", "[::1]:3000"}),
        ({"web_port": 80}, {"127.0.0.1", "localhost", "[::1]"}),
        ({"web_address": "192.0.2.7", "web_password": "x"}, {"192.0.2.7:3000", "127.0.0.1:3000"}),
        ({"web_address": "2001:db8::7", "web_password": "x"}, {"[2001:db8::7]:3000"}),
        # That of a proxy with TLS, whose port browsers leave out, and of one with a port of its own.
        ({"web_hosts": ["Lake.example"]}, {"lake.example", "lake.example:3000"}),
        ({"web_hosts": ["lake.example:8443"]}, {"lake.example:8443"}),
    ],
)
def test_the_names_that_are_answered(settings: dict[str, object], hosts: set[str]) -> None:
    answered = WebAccess.of_settings(Settings.model_validate(settings)).hosts
    assert hosts <= answered
    assert not {"0.0.0.0:3000", "192.0.2.7", "evil.example"} & answered
    assert settings.get("web_port") == 80 or "127.0.0.1" not in answered


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A state folder with the Data Docs of a table, and files that are none."""
    folder = tmp_path / "data_docs" / "silver.documents"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<html><script>alert(1)</script>rows</html>")
    (folder / "suite_ours.html").write_text("<html>ours</html>")
    (folder / "notes.txt").write_text("SECRET")
    (folder / "suite_link.html").symlink_to(tmp_path / "secret.html")
    (folder / "index.html.d").mkdir()
    (tmp_path / "secret.html").write_text("SECRET")
    (tmp_path / "data_docs" / "other").mkdir()
    (tmp_path / "data_docs" / "other" / "index.html").write_text("SECRET")
    return tmp_path


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_data_docs_are_served_and_can_do_nothing(
    instance: dg.DagsterInstance, docs: Path, prefix: str
) -> None:
    browser = client(instance, home=docs, web_path_prefix=prefix)
    for name, text in (("index", "rows"), ("suite_ours", "ours")):
        answer = browser.get(f"{prefix}/data_docs/silver.documents/{name}.html")
        assert answer.status_code == 200
        assert text in answer.text
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert {"sandbox", "default-src 'none'"} <= set(policy)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/silver.documents", "/silver.documents/", "/silver.documents/notes.txt",
        "/other/index.html", "/silver.documents/suite_link.html",
        "/silver.documents/index.html.d", "/gold.chunks/index.html",
        "/silver.documents/..%2f..%2fsecret.html", "/..%2fsecret.html", "/%2e%2e/secret.html",
        "/silver.documents/%2e%2e/%2e%2e/secret.html", "/silver.documents/index.html%00",
        "/silver.documents//etc/passwd", "/silver.documents/suite_..%2findex.html",
    ],
)  # fmt: skip
def test_no_other_file_is_served_as_data_docs(instance: dg.DagsterInstance, docs: Path, path: str) -> None:
    answer = client(instance, home=docs).get(f"/data_docs{path}")
    assert "SECRET" not in answer.text
    assert "root:" not in answer.text
    assert "notes" not in answer.text
    # What is not even of the form is a page of the web UI, which says that there is none.
    assert answer.status_code in (400, 404) or 'id="root"' in answer.text


def test_data_docs_want_the_password(instance: dg.DagsterInstance, docs: Path) -> None:
    browser = client(instance, "s3cret", home=docs)
    url = "/data_docs/silver.documents/index.html"
    assert browser.get(url).status_code == 401
    assert browser.get(url, auth=("headwater", "s3cret")).status_code == 200
    assert browser.post(url, json={}, auth=("headwater", "s3cret")).status_code == 405
