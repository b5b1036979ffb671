"""Dependencies point one way, between the rooms and between the packages inside them."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from common.rooms import ROOMS

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "orchestration": set(ROOMS),
    "assets": {"assets", "training", "quality", "retrieval", "inference", "common"},
    "training": {"training", "quality", "retrieval", "inference", "common"},
    "quality": {"quality", "retrieval", "common"},
    "retrieval": {"retrieval", "common"},
    "inference": {"inference", "retrieval", "common"},
    "common": {"common"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
}


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports, by full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found & MODULES.keys()


def package(module: str) -> str:
    """The package of a room that a module is in; a module that lies directly in a room is one by itself."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_is_below_it(room: str) -> None:
    wrong = {
        name: others
        for name, path in MODULES.items()
        if name.split(".")[0] == room
        and (others := {each.split(".")[0] for each in imported(path)} - ALLOWED[room])
    }
    assert wrong == {}


def test_a_standalone_package_imports_nothing_of_headwater() -> None:
    files = sorted((ROOT / "packages").glob("*/src/**/*.py"))
    assert files
    assert {path.name: imported(path) for path in files if imported(path)} == {}


def test_packages_import_each_other_one_way() -> None:
    below: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if name not in ROOMS:
            needs = {package(each) for each in imported(path) if each not in ROOMS}
            below.setdefault(package(name), set()).update(needs - {package(name)})
    try:
        TopologicalSorter(below).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_a_package_says_which_question_it_answers() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, f"{folder} has no docstring"
