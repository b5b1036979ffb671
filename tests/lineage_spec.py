"""Validates OpenLineage events by the specification's own JSON schema, where a folder of it is at hand."""

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource

SPEC = os.environ.get("HEADWATER_TEST_OPENLINEAGE_SPEC")
"""The folder `spec` of the specification's repository, of the client's version; None where there is none."""

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[\w.~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+", re.ASCII)
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


def require_valid_by_schema(event: dict[str, Any]) -> None:
    """Validates an event by the schema that it names, and each facet by the schema that the facet names.

    Raises:
        AssertionError: If a schema is in no file of the specification, or a facet has another's name.
        jsonschema.ValidationError: If something is not as its schema has it, formats included.
    """
    _require(event["schemaURL"], event)
    for name, facet in _facets(event):
        _require(facet["_schemaURL"], facet)
        names = _schemas().contents(_document(facet["_schemaURL"]))["properties"]
        assert name in names, f"the facet {name} is called {list(names)} by the specification"


def _facets(event: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in (event["run"], event["job"], *event.get("inputs", ()), *event.get("outputs", ())):
        for group in ("facets", "inputFacets", "outputFacets"):
            yield from each.get(group, {}).items()


def _require(url: str, value: dict[str, Any]) -> None:
    schemas = _schemas()
    assert _document(url) in schemas, f"{url} is in no file of {SPEC}: is it of the client's version?"
    Draft202012Validator({"$ref": url}, registry=schemas, format_checker=_formats()).validate(value)


def _document(url: str) -> str:
    return url.partition("#")[0]


@cache
def _schemas() -> Registry[Any]:
    """Returns the files of the specification by their `$id`, which is how they name one another."""
    assert SPEC is not None
    files = [Path(SPEC, "OpenLineage.json"), *Path(SPEC, "facets").glob("*.json")]
    schemas = [json.loads(file.read_text()) for file in files]
    return Registry().with_resources((each["$id"], Resource.from_contents(each)) for each in schemas)


@cache
def _formats() -> FormatChecker:
    """Returns checks of the formats that the specification has; the library's own need more packages."""
    formats = FormatChecker(["uuid"])
    formats.checks("uri")(lambda value: _URI.fullmatch(value) is not None)
    formats.checks("date-time", raises=ValueError)(
        lambda value: _DATE_TIME.fullmatch(value) is not None and bool(datetime.fromisoformat(value))
    )
    return formats
