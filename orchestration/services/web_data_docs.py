"""Serves Data Docs in the web UI, to which checks link: the pages of gates, and no other file."""

import re
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from quality.suites import SUITES

_PAGE = re.compile(r"(index|suite_\w+)\.html", re.ASCII)
_HEADERS = {
    # Values that a suite quotes come from documents: the page runs nothing, loads nothing and is no part of
    # the web UI's origin.
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "Cache-Control": "no-store",
}


def data_docs_route(folder: Path, url: str) -> Route:
    """Returns the route of every Data Docs page, `{url}/{table}/{page}`.

    Args:
        folder: The folder of Data Docs.
        url: The path under which it is served.
    """

    def page(request: Request) -> Response:
        table, name = request.path_params["table"], request.path_params["page"]
        file = folder / table / name
        known = table in SUITES and _PAGE.fullmatch(name)
        if not known or not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            reason = "no such page of Data Docs; a gate writes its page when it runs\n"
            return PlainTextResponse(reason, HTTPStatus.NOT_FOUND)
        return FileResponse(file, headers=_HEADERS, media_type="text/html")

    return Route(f"{url}/{{table}}/{{page}}", page)
