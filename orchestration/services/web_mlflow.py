"""MLflow's own pages in the web UI: runs, curves and versions of models, to be read and not changed.

MLflow's registry follows ours, so nothing is lost by taking no change from its pages; its server would also
call models, run jobs and hand out files. Only the queries that its pages of runs and models ask pass.
"""

import importlib.util
import os
import re
import threading
import warnings
from http import HTTPStatus
from pathlib import Path

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from training.place import TrainingPlace

_READ = re.compile(
    r"/(?:version|health)|/ajax-api/[23]\.0/mlflow/(?:"
    r"experiments/(?:get|get-by-name|search)|runs/get|artifacts/list|"
    r"metrics/get-history(?:-bulk(?:-interval)?)?|logged-models/[\w-]+|"
    r"registered-models/(?:get|search|get-latest-versions|alias)|model-versions/(?:get|search)|"
    r"server-info|ui-telemetry)",
    re.ASCII,
)
"""What is asked by GET: names and numbers, never a file of an artifact."""
_ASKED = re.compile(
    r"/graphql|/ajax-api/[23]\.0/?mlflow/(?:experiments/search|experiments/search-datasets|runs/search|"
    r"logged-models/search|traces/search|registered-models/get-latest-versions)",
    re.ASCII,
)
"""What is asked by POST, and changes nothing either."""
_PAGE_HEADERS = {
    # Names of data sets and models come from users: the page talks to this server alone.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def mlflow_pages(place: TrainingPlace) -> Path | None:
    """Returns the folder of MLflow's pages; None without the extra `train`, or with a server of its own."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or not spec.submodule_search_locations or place.mlflow_server is not None:
        return None
    return Path(spec.submodule_search_locations[0]) / "server" / "js" / "build"


def mlflow_routes(place: TrainingPlace, url: str) -> list[BaseRoute]:
    """Returns the routes of MLflow's pages over the local registry; none where they are not served.

    Args:
        place: The folders of the state folder.
        url: The path under which they are served.
    """
    pages = mlflow_pages(place)
    if pages is None:
        return []

    def page(request: Request) -> Response:
        return FileResponse(pages / "index.html", headers=_PAGE_HEADERS)

    def to_page(request: Request) -> Response:
        return RedirectResponse(f"{url}/")  # its links are relative to a folder

    return [
        Route(url, to_page),
        Route(f"{url}/", page),
        Mount(f"{url}/static-files", StaticFiles(directory=pages)),
        Mount(url, _MlflowQueries(place)),
    ]


class _MlflowQueries:
    """An ASGI application that answers MLflow's queries, and imports MLflow for the first of them.

    Args:
        place: Where the registry is.
    """

    def __init__(self, place: TrainingPlace) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._application: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or refuses it."""
        path = scope["path"].removeprefix(scope["root_path"])
        allowed = {"GET": _READ, "HEAD": _READ, "POST": _ASKED}.get(scope.get("method", ""))
        if allowed is None or not allowed.fullmatch(path):
            reason = "MLflow is only read here; `headwater models` changes what is served\n"
            await PlainTextResponse(reason, HTTPStatus.FORBIDDEN)(scope, receive, send)
            return
        application = await run_sync(self._loaded)
        await application(scope, receive, send)

    def _loaded(self) -> ASGIApp:
        with self._lock:
            if self._application is None:
                self._application = _mlflow_application(self._place)
            return self._application


def _mlflow_application(place: TrainingPlace) -> ASGIApp:
    """Returns MLflow's server over the local registry; importing it takes seconds."""
    place.models.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ |= {
        "_MLFLOW_SERVER_FILE_STORE": place.mlflow_uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (place.models / "mlflow").as_uri(),
        # Our guard is stricter, and knows the names of a proxy.
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated there, and how MLflow itself is served
        from mlflow.server import app
        from starlette.middleware.wsgi import WSGIMiddleware

    return WSGIMiddleware(app)
