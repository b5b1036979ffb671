"""`headwater bench answers` on a small release: every engine answers, and nothing is added to the lake."""

import json

import pytest
from typer.testing import CliRunner

from assets.lake.tables import ANSWERS
from orchestration.cli.main import app
from orchestration.settings import Settings, open_configured_lake


def test_each_engine_is_measured_and_the_lake_is_as_it_was(
    small_release: Settings, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(small_release.home))
    file = tmp_path_factory.mktemp("bench") / "questions.jsonl"
    rows = [{"question": "Where does the Danube rise?"}, {"question": "What is bread baked from?"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lake = open_configured_lake(small_release)
    before = lake.version(ANSWERS.name)
    done = CliRunner().invoke(
        app, ["bench", "answers", str(file), "--tenant", "acme", "--json"], catch_exceptions=False
    )
    found = json.loads(done.stdout)
    assert found["bench"] == "answers"
    for engine in ("extractive", "loopback"):
        assert found["figures"][f"{engine}_answered"] == 2
        assert found["figures"][f"{engine}_questions_per_s"] > 0
        shares = [found["ratios"][f"{engine}_{part}_share"] for part in ("retrieval", "engine", "keeping")]
        assert sum(shares) == pytest.approx(1)
        assert all(share >= 0 for share in shares)
    assert "local_answered" not in found["figures"]
    assert lake.version(ANSWERS.name) == before
