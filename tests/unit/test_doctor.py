"""The doctor finds what is missing and names a cure for each."""

import socket
from pathlib import Path

import pytest

from orchestration.operations import doctor
from orchestration.settings import Settings
from retrieval.embedding.config import EmbedderConfig


@pytest.fixture
def settings(module_folder: Path) -> Settings:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return Settings(
            home=module_folder / "home", web_port=one.getsockname()[1], thrift_port=other.getsockname()[1]
        )


def found(checks: list[doctor.DoctorCheck], name: str) -> doctor.DoctorCheck:
    return next(check for check in checks if check.name == name)


def test_all_is_well_here(settings: Settings) -> None:
    checks = doctor.run_doctor(settings)
    assert [check for check in checks if not check.ok or check.cure] == []
    assert {"Java", "Delta jars", "Embedder", "State folder", "Disk", "Web port", "PostgreSQL"} <= {
        check.name for check in checks
    }


def test_every_fault_has_its_cure(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "no-java"))
    monkeypatch.setattr(doctor, "JARS", tmp_path / "no-jars")
    monkeypatch.setattr(doctor, "MIN_DISK_GIB", 10**9)
    monkeypatch.setattr(doctor, "CHECKED_PACKAGES", ("no-such-package",))
    settings.recipe.embedder = EmbedderConfig(model=tmp_path / "no-model")
    settings.home = tmp_path / "a-file" / "home"
    (tmp_path / "a-file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings.web_port = taken.getsockname()[1]
        checks = doctor.run_doctor(settings)
    bad = {check.name: check.cure for check in checks if not check.ok}
    assert set(bad) == {
        "Java",
        "no-such-package",
        "Delta jars",
        "Embedder",
        "State folder",
        "Disk",
        "Web port",
        "PostgreSQL",
    }
    assert all(bad.values())
    assert "HEADWATER_WEB_PORT" in bad["Web port"]


def test_locked_versions() -> None:
    text = "delta-spark==4.4.0 \\\n    --hash=sha256:ab\nmlx==1 ; sys_platform == 'darwin' \\\n    --hash=x\n"
    assert doctor.doctor_locked_versions(text) == {"delta-spark": "4.4.0", "mlx": "1"}
