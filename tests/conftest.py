"""Fixtures shared by every test: one Spark session and one PostgreSQL a run."""

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

    # Not pytest's own folder: every run that starts closes that to all but its user, and as root the server's
    # is another. A space in the path, because users have them.
    with tempfile.TemporaryDirectory(prefix="state of postgres ") as state:
        server = Postgres(Path(state), PostgresConfig(pool_timeout_s=5))
        yield server
        server.stop()


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """A folder that the embedded server's own user can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="headwater-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public evaluation sets beside the checkout, where they are."""
    folder = Path(os.environ.get("HEADWATER_TEST_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"no evaluation sets in {folder}")
    return folder
