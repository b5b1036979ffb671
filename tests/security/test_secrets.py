"""Secrets that were given in the settings or a URL appear nowhere: planted ones are looked for everywhere."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr, ValidationError

from assets.lake.spark import REVEALED, SparkConfig
from assets.sources.source_config import Source
from common.redaction import has_credentials, redact_secrets, redact_urls
from orchestration.settings import Settings, secret_setting_values
from retrieval.store.postgres import PostgresConfig

ROOT = Path(__file__).parents[2]
PLANTED = (
    "PLANTED-conf-7f3a",
    "PLANTED/url+8b2c",
    "PLANTED-pg-91d0",
    "PLANTED-hook-44e7",
    "PLANTED-rank-5c19",
)
CONF, URL, PASSWORD, WEBHOOK, KEY = PLANTED


def environment(home: Path) -> dict[str, str]:
    return os.environ | {
        "HEADWATER_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "400",  # or a secret could be there in two lines
        "HEADWATER_SPARK__CONF": json.dumps(
            {"spark.hadoop.fs.s3a.secret.key": CONF, "spark.headwater.odd": f" {CONF}\\ = #"}
        ),
        "HEADWATER_ALERT_WEBHOOK": f"https://hooks.invalid/{WEBHOOK}",
        "HEADWATER_RERANKER__ENDPOINT": f"http://user:{KEY}@127.0.0.1:9/rerank",
        "HEADWATER_RERANKER__API_KEY": KEY,
        "HEADWATER_GENERATOR__ENDPOINT": f"http://user:{KEY}@127.0.0.1:9/v1",
        "HEADWATER_GENERATOR__ENDPOINT_MODEL": "m",
    }


class Watched:
    """Runs the command line, and keeps all that it says and every command line that is seen meanwhile."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said = ""
        self.seen = ""

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        ended = threading.Event()
        # The caller's own arguments are there for who typed them; all that we start is looked at.
        watcher = threading.Thread(target=self._watch, args=(ended,))
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli.main", *arguments],
            env=environment(self.home) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._own = process.pid
        watcher.start()
        said, _ = process.communicate(timeout=300)
        ended.set()
        watcher.join()
        self.said += said
        return subprocess.CompletedProcess(arguments, process.returncode, said, "")

    def _watch(self, ended: threading.Event) -> None:
        while not ended.is_set():
            for process in psutil.process_iter():
                try:
                    if process.pid not in (self._own, os.getpid()):
                        self.seen += " ".join(process.cmdline()) + "\n"
                except psutil.Error:
                    continue
            time.sleep(0.1)


@pytest.fixture
def headwater(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "home")


def test_planted_secrets_are_nowhere(headwater: Watched, tmp_path: Path) -> None:
    location = f"s3a://PLANTEDID:{URL}@bucket/folder"
    for arguments in (("source", "add", "away", location), ("ingest", location)):
        refused = headwater(*arguments)
        assert refused.returncode == 1, refused.stdout
        assert "HEADWATER_SPARK__CONF" in refused.stdout
    assert headwater("source", "list", "--json").stdout.strip() == "[]"
    shown = headwater("settings", "--json")
    assert shown.returncode == 0
    assert "spark.hadoop.fs.s3a.secret.key" in shown.stdout
    # Another file system is listed by Spark, which gets the settings, and this one it does not have.
    assert headwater("source", "add", "away", "s3a://bucket/folder").returncode == 0
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Bees\n\nThe waggle dance tells where the flowers are.\n")
    assert headwater("source", "add", "docs", str(tmp_path / "docs")).returncode == 0
    url = f"postgresql://admin:{PASSWORD}@127.0.0.1:9/headwater"
    failed = headwater("run", HEADWATER_POSTGRES__URL=url)
    assert failed.returncode == 1, failed.stdout
    assert "127.0.0.1" in failed.stdout
    for broken in (f"postgresql://admin:{PASSWORD}%zz@host/x", f"postgresql://admin:{PASSWORD}@host:port/x"):
        headwater("status", HEADWATER_POSTGRES__URL=broken)
    unnamed = headwater("status", HEADWATER_GENERATOR__ENDPOINT_MODEL="")
    assert unnamed.returncode == 2
    assert "endpoint_model is missing" in unnamed.stdout
    lake = headwater("run", HEADWATER_LAKE=f"s3a://PLANTEDID:{URL}@bucket/lake")
    assert lake.returncode != 0
    assert "HEADWATER_SPARK__CONF" in lake.stdout
    assert "org.apache.spark.deploy.SparkSubmit" in headwater.seen
    found = {"what is said": headwater.said, "command lines": headwater.seen}
    for secret in (*PLANTED, "PLANTEDID"):
        assert [where for where, text in found.items() if secret in text] == []
    files = [path for path in headwater.home.rglob("*") if path.is_file()]
    assert {"errors.log", "sources.json"} <= {path.name for path in files}
    assert [path for path in files if path.suffix == ".db"]
    for path in files:
        body = path.read_bytes()
        assert not [secret for secret in PLANTED if secret.encode() in body], path
        assert b"PLANTEDID" not in body, path


def test_spark_gets_what_it_is_not_shown_to_get(headwater: Watched) -> None:
    script = (
        "from pathlib import Path; from assets.lake.spark import spark_session; import sys, os\n"
        "from orchestration.settings import Settings\n"
        "session = spark_session(Settings().spark, Path(sys.argv[1]))\n"
        "conf = session.sparkContext.getConf()\n"
        "print(conf.get('spark.hadoop.fs.s3a.secret.key'), '|', conf.get('spark.headwater.odd'), sep='')\n"
        "print('PYSPARK_SUBMIT_ARGS' in os.environ)"
    )
    scratch = headwater.home / "spark's scratch"
    done = subprocess.run(
        [sys.executable, "-c", script, str(scratch)],
        env=environment(headwater.home),
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()[-2:]
    assert first == f"{CONF}|{CONF}\\ = #"
    assert second == "False"
    for file in scratch.rglob("*"):
        assert not file.is_file() or CONF.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3a://ID:SE/CR+ET=@bucket/a", "s3a://***@bucket/a"),
        ("https://token@host/a", "https://***@host/a"),
        ("postgresql://u:p@ss@host:5432/db", "postgresql://***@host:5432/db"),
        ("abfss://container@account.dfs.core.windows.net/a", None),
        ("abfss://container:key@account/a", "abfss://***@account/a"),
        ("https://host/people/@somebody", None),
        ("http://127.0.0.1:8000/v1/@x", None),
        ("https://host/a?sig=abc&x=1", "https://host/a?sig=***&x=1"),
        ("hdfs://namenode:8020/a", None),
        ("a@example.com", None),
        ("/home/me/a@b", None),
    ],
)
def test_credentials_in_urls_are_hidden(url: str, shown: str | None) -> None:
    assert redact_urls(url) == (shown or url)
    assert redact_urls(f"can't read '{url}': no such host") == f"can't read '{shown or url}': no such host"
    assert has_credentials(url) is (shown is not None)


def test_no_error_repeats_what_was_given() -> None:
    with pytest.raises(ValidationError) as refused:
        Source(name="a b", location=f"s3a://ID:{URL}@bucket")
    assert URL not in str(refused.value)
    with pytest.raises(ValidationError, match="no URL of PostgreSQL") as refused:
        PostgresConfig(url=SecretStr(f"postgresql://u:{PASSWORD}%zz@host"))
    assert PASSWORD not in str(refused.value)


def test_every_secret_of_the_settings_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    secrets = secret_setting_values(Settings())
    assert {CONF, KEY, f"https://hooks.invalid/{WEBHOOK}"} <= set(secrets)
    assert redact_secrets(f"a {CONF} b {KEY}", secrets) == "a *** b ***"


def test_settings_of_spark_are_in_json_only_for_a_process_of_ours() -> None:
    config = SparkConfig(conf={"spark.hadoop.fs.s3a.secret.key": SecretStr(CONF)})
    assert CONF not in config.model_dump_json() + str(config) + repr(config)
    assert SparkConfig.model_validate_json(config.model_dump_json(context=REVEALED)) == config
