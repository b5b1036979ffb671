"""A local OpenLineage endpoint, which keeps what it is sent, and reads it by the specification."""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import attr
from lineage_spec import SPEC, require_valid_by_schema
from openlineage.client import generated
from openlineage.client.generated import base


@dataclass
class LineageReceiver:
    """The URL of an endpoint, and what was sent to it."""

    url: str
    events: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)

    def of_job(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["job"]["name"] == name]


@contextmanager
def lineage_receiver() -> Iterator[LineageReceiver]:
    received = LineageReceiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/api/v1/lineage"
            received.keys.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.events.append(json.loads(body))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


FACETS: dict[str, type] = {
    kind.__name__: kind
    for module in pkgutil.iter_modules(generated.__path__)
    for kind in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).values()
    if isinstance(kind, type) and issubclass(kind, base.BaseFacet)
}
"""The facets of the specification, which the client's classes are generated from, by name."""


def require_valid_event(event: dict[str, Any]) -> None:
    """Reads an event as what the client generated from the specification's JSON schema.

    A field that is unknown, missing, of another type or no UUID or time is an error. Where the schema itself
    is at hand, the event is validated by it too.
    """
    _structure(base.RunEvent, event, "event")
    if SPEC is not None:
        require_valid_by_schema(event)


def _structure(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{where} is {value!r}, no {kind.__name__}")
    if issubclass(kind, base.BaseFacet):
        kind = FACETS[value["_schemaURL"].rpartition("/")[2]]
        assert value["_schemaURL"] == kind._get_schema(), where  # type: ignore[attr-defined]
    hints = get_type_hints(kind)
    fields = {each.name: each for each in attr.fields(kind)}
    assert value.keys() <= fields.keys(), f"{where} has {value.keys() - fields.keys()}"
    given = {
        name.lstrip("_"): _typed(hints[name], each, f"{where}.{name}")
        for name, each in value.items()
        if fields[name].init
    }
    return kind(**given)


def _typed(hint: Any, value: Any, where: str) -> Any:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None:
        assert type(None) in choices, where
        return None
    [wanted] = [each for each in choices if each is not type(None)]
    if get_origin(wanted) is list:
        return [_typed(get_args(wanted)[0], each, f"{where}[]") for each in value]
    if get_origin(wanted) is dict:
        return {key: _typed(get_args(wanted)[1], each, f"{where}.{key}") for key, each in value.items()}
    if attr.has(wanted):
        return _structure(wanted, value, where)
    if wanted is base.EventType:
        return base.EventType(value)
    assert isinstance(value, wanted), where
    return value
