"""Fixtures for all tests: one Spark session and one PostgreSQL server per test run."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import SparkSession

if TYPE_CHECKING:
    from retrieval.store.postgres import Postgres

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    from assets.lake.spark import SparkConfig, spark_session

    session = spark_session(SparkConfig(driver_memory="2g"), tmp_path_factory.mktemp("spark"))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator["Postgres"]:
    from retrieval.store.postgres import Postgres, PostgresConfig

    # pytest closes its own folders to other users, and as root the server runs as another user. The path has
    # a space, because paths of users have them.
    with tempfile.TemporaryDirectory(prefix="state of postgres ") as state:
        server = Postgres(Path(state), PostgresConfig(pool_timeout_s=5))
        yield server
        server.stop()


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """A folder that the embedded server's user can read, unlike pytest's own folders."""
    with tempfile.TemporaryDirectory(prefix="headwater-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public evaluation sets beside the checkout; skips the test if there is none."""
    folder = Path(os.environ.get("HEADWATER_TEST_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"no evaluation sets in {folder}")
    return folder
