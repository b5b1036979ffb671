"""Dependencies point one way: between the rooms, the packages inside them, and their files."""

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
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imported(tree: ast.AST, running: bool = False) -> set[str]:
    """The modules of ours that code imports, also inside functions; `running` skips those of types."""
    if running and isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        tree = ast.Module(tree.orelse, [])
    if isinstance(tree, ast.Import):
        return {alias.name for alias in tree.names} & MODULES.keys()
    if isinstance(tree, ast.ImportFrom):
        full = {f"{tree.module}.{alias.name}" for alias in tree.names} & MODULES.keys()
        return full or {str(tree.module)} & MODULES.keys()
    return set().union(*(imported(child, running) for child in ast.iter_child_nodes(tree)))


def assert_no_circle(needs: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def package(module: str) -> str:
    """The package of a room that a module is in; a module that lies directly in a room is one by itself."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_is_below_it(room: str) -> None:
    wrong = {
        name: others
        for name, tree in TREES.items()
        if name.split(".")[0] == room
        and (others := {each.split(".")[0] for each in imported(tree)} - ALLOWED[room])
    }
    assert wrong == {}


def test_a_standalone_package_imports_nothing_of_headwater() -> None:
    files = sorted((ROOT / "packages").glob("*/src/**/*.py"))
    assert files
    assert set().union(*(imported(ast.parse(path.read_text())) for path in files)) == set()


def test_packages_import_each_other_one_way() -> None:
    below: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        if name not in ROOMS:
            needs = {package(each) for each in imported(tree) if each not in ROOMS}
            below.setdefault(package(name), set()).update(needs - {package(name)})
    assert_no_circle(below)


def test_files_import_each_other_one_way() -> None:
    assert_no_circle({name: imported(tree, running=True) - {name} for name, tree in TREES.items()})


def test_a_package_says_which_question_it_answers() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
        assert docstring, f"{folder} has no docstring"
