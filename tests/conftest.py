"""Fixtures shared by every test: one Spark session and one PostgreSQL a run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    from assets.spark import SparkConfig, spark_session

    session = spark_session(SparkConfig(driver_memory="2g"), tmp_path_factory.mktemp("spark"))
    yield session
    session.stop()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The public evaluation sets beside the checkout, where they are."""
    folder = Path(os.environ.get("HEADWATER_TEST_DATA", SHARED_DATA))
    if not folder.is_dir():
        pytest.skip(f"no evaluation sets in {folder}")
    return folder
