"""What set-up promises: locks with hashes and no addresses, pinned jars, and only what is pinned."""

import hashlib
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from assets.lake.spark import JARS
from orchestration.environment import jars
from orchestration.operations.doctor import doctor_locked_versions

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {extra: ROOT / f"requirements-{extra}.txt" for extra in PROJECT["optional-dependencies"]}
LOCKS["base"] = ROOT / "requirements.txt"


@pytest.mark.parametrize("extra", sorted(LOCKS))
def test_locks_have_hashes_and_no_addresses(extra: str) -> None:
    text = LOCKS[extra].read_text()
    assert not re.search(r"://|--index|--extra-index|--find-links|^-i ", text, re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", text.strip())
    without = [block for block in blocks if "--hash=sha256:" not in block]
    assert without == []


@pytest.mark.parametrize("extra", sorted(LOCKS))
def test_locks_are_of_this_pyproject(extra: str) -> None:
    locked = doctor_locked_versions(LOCKS[extra].read_text())
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(extra, [])
    for requirement in map(Requirement, wanted):
        pinned = locked.get(canonicalize_name(requirement.name))
        assert pinned, f"{requirement} is not in {LOCKS[extra].name}: run `make lock`"
        assert pinned in requirement.specifier, f"{requirement} is locked at {pinned}: run `make lock`"


def test_extras_fit_together() -> None:
    versions: dict[str, set[str]] = {}
    for path in LOCKS.values():
        for line in path.read_text().splitlines():
            # A package with several markers is locked once for each.
            if line and line[0].isalnum() and ";" not in line:
                name, _, pinned = line.split()[0].partition("==")
                versions.setdefault(name, set()).add(pinned)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_the_jars_are_those_of_the_packages() -> None:
    assert jars.DELTA_PACKAGE.endswith(f":{version('delta-spark')}")
    assert f"_{'.'.join(version('pyspark').split('.')[:2])}_" in jars.DELTA_PACKAGE
    assert jars.jar_faults(JARS) == []


def test_a_jar_that_differs_is_named(tmp_path: Path) -> None:
    pinned = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a.jar", "b.jar", "c.jar")}
    (tmp_path / "a.jar").write_text("a.jar")
    (tmp_path / "b.jar").write_text("something else")
    (tmp_path / "d.jar").touch()
    faults = jars.jar_faults(tmp_path, pinned)
    assert len(faults) == 3
    assert faults[0].startswith("b.jar has sha256 ")
    assert pinned["b.jar"] in faults[0]
    assert faults[1:] == ["c.jar is missing", "d.jar does not belong there"]


def test_what_was_fetched_and_is_not_pinned_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spark = tmp_path / "pyspark"
    (spark / "bin").mkdir(parents=True)
    submit = spark / "bin" / "spark-submit"
    # Stands in for Spark's resolver, which needs the network.
    submit.write_text(
        "#!/bin/sh\nfor a; do case $a in spark.jars.ivy=*) d=${a#*=}/jars;; esac; done\n"
        'mkdir -p "$d" && echo tampered > "$d/x.jar"\n'
    )
    submit.chmod(0o755)
    monkeypatch.setattr("pyspark.__path__", [str(spark)])
    target = tmp_path / "jars"
    with pytest.raises(jars.JarError, match=r"x\.jar does not belong there"):
        jars.fetch_jars(target)
    assert not target.exists()
    submit.write_text("#!/bin/sh\necho unresolved dependency >&2\nexit 1\n")
    with pytest.raises(jars.JarError, match="unresolved dependency"):
        jars.fetch_jars(target)
