"""Dependencies point one way: orchestration → assets → (quality, retrieval, inference)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("orchestration", "assets", "quality", "retrieval", "inference")
ALLOWED = {
    "orchestration": set(ROOMS),
    "assets": {"assets", "quality", "retrieval", "inference"},
    "quality": {"quality"},
    "retrieval": {"retrieval"},
    "inference": {"inference", "retrieval"},
}


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.partition(".")[0] for name in names}
    return found & set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_is_below_it(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): imported_rooms(path) - ALLOWED[room] for path in files}
    assert {name: rooms for name, rooms in wrong.items() if rooms} == {}
