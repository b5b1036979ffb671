"""The web UI as a person uses it: the asset graph, a materialization, its metadata."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from free_ports import free_ports
from playwright.sync_api import HttpCredentials, Page, sync_playwright

from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.services import lifecycle
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# As root it wants no sandbox, and it calls nobody.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WAIT_MS = 60_000
PASSWORD = "of the browser's test"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: chromium)")


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Iterator[Settings]:
    (module_folder / "docs").mkdir()
    (module_folder / "docs" / "bees.md").write_text(
        "# Bees\n\nWorkers tell one another where nectar is by a waggle dance on the comb.\n"
    )
    web_port, thrift_port = free_ports(2)
    with pytest.MonkeyPatch.context() as environment:
        # Behind a proxy and with a password, as it is where it is harder for a page.
        environment.setenv("HEADWATER_WEB_PATH_PREFIX", "/some/lake")
        environment.setenv("HEADWATER_WEB_PASSWORD", PASSWORD)
        environment.setenv("HEADWATER_WEB_PORT", str(web_port))
        environment.setenv("HEADWATER_THRIFT_PORT", str(thrift_port))
        settings = Settings(home=module_folder / "home")
        lifecycle.start_services(settings, print)
        yield settings
        lifecycle.stop_services(settings, print)


@pytest.fixture
def sockets() -> list[str]:
    """The addresses of the WebSockets that the page opened."""
    return []


@pytest.fixture
def page(settings: Settings, sockets: list[str]) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        known = HttpCredentials(username="headwater", password=PASSWORD)
        page = browser.new_page(viewport={"width": 1600, "height": 900}, http_credentials=known)
        page.on("websocket", lambda socket: sockets.append(socket.url))
        page.set_default_timeout(WAIT_MS)
        yield page
        browser.close()


def follow_data_docs(page: Page) -> None:
    """Loads a page of Data Docs and follows each of its links: all is there, and nobody else is called."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    address = page.url
    page.reload()
    links = page.get_by_role("link").all()
    assert len(links) > 10
    for link in links:
        link.click()
        place = page.url.partition("#")[2]
        assert place
        assert page.locator(f"[id='{place}']").is_visible()
    assert {url.partition("#")[0] for url in asked} == {address}
    assert errors == []
    # It has looks: the sidebar with its links stands beside the results.
    sidebar, results = page.locator(".sticky").bounding_box(), page.locator("#section-2").bounding_box()
    assert sidebar
    assert results
    assert sidebar["x"] + sidebar["width"] <= results["x"]


def code_server(settings: Settings) -> int | None:
    return next(each.pid for each in lifecycle.service_statuses(settings) if each.service == "code")


def wait_for_new_definitions(settings: Settings, before: int | None) -> None:
    """Waits until the code server was started again for a source that was added, and the web UI knows it."""
    deadline_s = time.monotonic() + 200  # a run of the sensor comes first where that was faster
    while True:
        found = {each.service: each for each in lifecycle.service_statuses(settings)}
        if found["code"].pid not in (None, before) and found["code"].healthy and found["web"].healthy:
            return
        assert time.monotonic() < deadline_s
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_materialize_all_in_the_browser(settings: Settings, page: Page, sockets: list[str]) -> None:
    web = f"http://127.0.0.1:{settings.web_port}{settings.web_path_prefix}"
    page.goto(f"{web}/asset-groups")
    for group in ("bronze", "silver", "gold", "serving", "ops"):
        page.get_by_text(group, exact=True).first.wait_for()
    code = code_server(settings)
    # Only now, or the sensor would have started a run before us.
    SourceRegistry(settings.sources_file).add(
        Source(name="docs", location=str(settings.home.parent / "docs"))
    )
    wait_for_new_definitions(settings, code)
    page.goto(f"{web}/locations/headwater/jobs/refresh")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_text("Launched run").first.wait_for()

    with dagster_home_instance(settings) as instance:
        by_itself = {"dagster/sensor_name", "dagster/schedule_name"}  # the nightly one ticks at four
        launched = [run for run in instance.get_runs() if not by_itself & run.tags.keys()]
        assert len(launched) == 1
        run_id = launched[0].run_id
    page.goto(f"{web}/runs/{run_id}")
    page.get_by_text("Success", exact=True).first.wait_for(timeout=240_000)

    with dagster_home_instance(settings) as instance:
        logged = instance.all_logs(run_id)
        # What takes longer says what it does; checks of little say their result.
        long = {
            each.step_key
            for each in instance.get_run_step_stats(run_id)
            if (each.end_time or 0) - (each.start_time or 0) > 2
        }
    assert long <= {entry.step_key for entry in logged if entry.dagster_event is None}

    page.goto(f"{web}/assets/silver/documents")
    page.get_by_text("Row count").first.wait_for()
    page.get_by_text("text_sha256").first.wait_for()
    page.get_by_text("last_release").first.wait_for()
    page.get_by_text("[Show Markdown]").first.click()
    picture = page.get_by_alt_text("characters per document")
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 0  # a picture that could not be read has none
    page.goto(f"{web}/assets/silver/documents?view=checks")
    page.get_by_text("char_count_matches_text").first.wait_for()
    page.get_by_text("Spans are counted in characters").first.wait_for()
    page.get_by_text("char_count_matches_text").first.click()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="/data_docs/silver.documents/index.html").first.click()
    opened.value.get_by_text("Evaluated Expectations").first.wait_for()
    assert opened.value.url == f"{web}/data_docs/silver.documents/index.html"
    follow_data_docs(opened.value)
    # The run's page follows its run by a socket, without which it asks again and again.
    assert f"{web.replace('http', 'ws', 1)}/graphql" in sockets
    page.goto(f"{web}/assets/ops/release?view=events")
    page.get_by_text("release_id").first.wait_for()
    with dagster_home_instance(settings) as instance:
        key = dg.AssetKey(["ops", "release"])
        event = instance.get_latest_materialization_event(key)
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.metadata["release_id"].value == "r1.1"


def test_every_schedule_and_sensor_is_shown(settings: Settings, page: Page) -> None:
    page.goto(f"http://127.0.0.1:{settings.web_port}{settings.web_path_prefix}/automation")
    for name in ("arrivals", "automations", "daily", "nightly", "reaper", "alerts"):
        page.get_by_text(name, exact=True).first.wait_for()
