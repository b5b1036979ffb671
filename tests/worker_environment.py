"""An environment with only what a worker needs, made of links to packages that are installed here."""

import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

NEEDED = ("torch", "transformers", "safetensors", "pyarrow", "dagster-pipes")
NEEDED_TO_TRAIN = ("peft", "sentence-transformers", "pyarrow", "pydantic", "dagster-pipes")


def make_worker_environment(folder: Path, needed: tuple[str, ...] = NEEDED) -> Path:
    """Makes a virtual environment of some packages and what they depend on, and returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [packages] = folder.glob("lib/python*/site-packages")
    for each in _with_dependencies(needed).values():
        for name in {file.parts[0] for file in each.files or ()} - {"..", "__pycache__"}:
            link = packages / name
            if not link.exists():
                link.symlink_to(Path(str(each.locate_file(name))))
    return folder / "bin" / "python"


def _with_dependencies(names: tuple[str, ...]) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    left = list(names)
    while left:
        name = left.pop()
        if name in found:
            continue
        found[name] = distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
    return found
