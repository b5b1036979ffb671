"""Fixtures for all tests: one Spark session and one PostgreSQL server per process of a test run."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import SparkSession

if TYPE_CHECKING:
    from assets.engine.relations import Relations
    from orchestration.settings import Settings
    from retrieval.store.postgres import Postgres

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    from assets.lake.spark import SparkConfig, spark_session

    session = spark_session(SparkConfig(driver_memory="2g"), tmp_path_factory.mktemp("spark"))
    yield session
    session.stop()


@pytest.fixture
def local_and_spark(spark: SparkSession) -> Iterator[tuple["Relations", "Relations"]]:
    """Both engines, without a relation."""
    from assets.engine.local_relations import LocalRelations
    from assets.engine.spark_relations import SparkRelations

    with LocalRelations() as local, SparkRelations(spark) as distributed:
        yield local, distributed


@pytest.fixture(scope="session")
def postgres() -> Iterator["Postgres"]:
    from retrieval.store.postgres import Postgres, PostgresConfig

    # A space in the path, because users have them.
    with tempfile.TemporaryDirectory(prefix="state of postgres ") as state:
        server = Postgres(Path(state), PostgresConfig(pool_timeout_s=5))
        yield server
        server.remove()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """As root, data of PostgreSQL lies beside the state folders, which go with the tests' folders."""
    if hasattr(session.config, "workerinput"):
        return  # other workers still move state folders; the process that started them comes last
    from retrieval.store.server_data import abandoned_server_data, state_folder_of_server_data

    for data in abandoned_server_data():
        if state_folder_of_server_data(data).is_relative_to(tempfile.gettempdir()):
            shutil.rmtree(data, ignore_errors=True)
            data.with_name(data.name + ".state-folder").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def small_release(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Settings"]:
    """The settings of a state folder with a live release of three texts; tests may add answers to it only."""
    from small_release import state_with_small_release

    with state_with_small_release(tmp_path_factory.mktemp("release") / "state") as settings:
        yield settings


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    """A folder for the tests of one module."""
    with tempfile.TemporaryDirectory(prefix="headwater-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public evaluation sets beside the checkout; skips the test if there is none."""
    folder = Path(os.environ.get("HEADWATER_TEST_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"no evaluation sets in {folder}")
    return folder
