"""The doctor: checks what Headwater needs on this machine, and says how to fix what is missing."""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from assets.lake.spark import JARS, SPARK_GUARD, NoSparkSession
from assets.model_consistency import model_discrepancies
from orchestration.configured_parts import (
    DoctorCheck,
    check_embedding_endpoint,
    check_generator,
    check_lake,
    check_reranker,
)
from orchestration.environment import jars
from orchestration.environment.java import UnsupportedJava, require_java
from orchestration.environment.spark_guard import require_spark_guard
from orchestration.services.processes import is_port_free, port_holder, process_group, read_pid_file
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.config import (
    DEFAULT_MODEL_CACHE,
    EmbeddingModelNotInstalled,
    embedding_model_command,
)
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_folder import UnsupportedEmbeddingModel
from retrieval.embedding.model_signature import ModelNotTrusted
from retrieval.index.index import Index
from retrieval.store.postgres import DatabaseError, Postgres
from retrieval.store.server_data import abandoned_server_data

MIN_DISK_GIB = 5
"""Room for a small lake, its index and Spark's shuffle files."""

CHECKED_PACKAGES = (
    "pyspark",
    "delta-spark",
    "deltalake",
    "duckdb",
    "dagster",
    "great-expectations",
    "openvino",
)
"""The packages whose versions decide whether the parts work together."""


def run_doctor(settings: Settings) -> list[DoctorCheck]:
    """Checks everything that Headwater needs of this machine.

    It starts PostgreSQL for that, and stops it if it did not run before.
    """
    return [
        _java(),
        _python(),
        *_packages(),
        _jars(),
        _spark_guard(),
        _embedder(settings),
        *check_embedding_endpoint(settings),
        *check_reranker(settings),
        *check_generator(settings.generator),
        _home(settings.home),
        _disk(settings.home),
        check_lake(settings),
        *_ports(settings),
        _postgres(settings),
        *_models(settings),
    ]


def _java() -> DoctorCheck:
    try:
        java = require_java()
    except UnsupportedJava as error:
        found, _, cure = str(error).partition("; ")
        return DoctorCheck("Java", ok=False, found=found, cure=cure)
    return DoctorCheck("Java", ok=True, found=f"{java.version} ({java.program})")


def _python() -> DoctorCheck:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 11) <= sys.version_info < (3, 14)
    cure = "" if ok else "make clean, then make setup PYTHON=/path/to/python3.12"
    return DoctorCheck("Python", ok, f"{version} ({sys.executable})", cure)


def doctor_locked_versions(text: str) -> dict[str, str]:
    """Returns the versions in a lock file's text by normalised package name."""
    pins = (line.split()[0].partition("==") for line in text.splitlines() if line and line[0].isalnum())
    return {name: version for name, _, version in pins}


def _packages() -> Iterator[DoctorCheck]:
    lock = Path(__file__).parents[2] / "requirements.txt"
    wanted = doctor_locked_versions(lock.read_text()) if lock.is_file() else {}
    for name in CHECKED_PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield DoctorCheck(name, ok=False, found="not installed", cure="make setup")
            continue
        ok = version == wanted.get(name, version)
        yield DoctorCheck(
            name, ok, version, "" if ok else f"make setup (the locked version is {wanted[name]})"
        )


def _jars() -> DoctorCheck:
    if faults := jars.jar_faults(JARS):
        cure = f"remove {JARS} and .venv/.ready, then make setup"
        return DoctorCheck("Delta jars", ok=False, found="; ".join(faults), cure=cure)
    return DoctorCheck("Delta jars", ok=True, found=f"{len(jars.PINNED_JARS)} in {JARS}")


def _spark_guard() -> DoctorCheck:
    try:
        require_spark_guard()
    except NoSparkSession as error:
        return DoctorCheck("Spark's guard", ok=False, found=str(error), cure="make setup")
    return DoctorCheck("Spark's guard", ok=True, found=str(SPARK_GUARD))


def _embedder(settings: Settings) -> DoctorCheck:
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    if model.config.endpoint.url:
        return DoctorCheck("Embedder", ok=True, found=model.name)
    try:
        converted = model.converted_path
    except (UnsupportedEmbeddingModel, EmbeddingModelNotInstalled, ModelNotTrusted, OSError) as error:
        cure = "set HEADWATER_RECIPE__EMBEDDER__MODEL to a sentence-transformers folder"
        if Path(model.config.model).is_relative_to(settings.models_folder):
            cure = "`headwater models rollback embedder` serves the one before"
        if isinstance(error, EmbeddingModelNotInstalled):
            cure = embedding_model_command(str(model.config.model))
        return DoctorCheck("Embedder", ok=False, found=str(error), cure=cure)
    if not converted.is_file() and model.cache == DEFAULT_MODEL_CACHE:
        found = f"{model.name} is not converted for OpenVINO"
        return DoctorCheck(
            "Embedder", ok=False, found=found, cure="python -m orchestration.environment.setup"
        )
    later = "" if converted.is_file() else " (the next run converts it for OpenVINO)"
    return DoctorCheck("Embedder", ok=True, found=f"{model.name}{later}")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _home(home: Path) -> DoctorCheck:
    folder = _existing(home)
    ok = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    found = f"{home}{'' if folder == home else ' (not made yet)'}"
    cure = "" if ok else f"make {folder} writable for you, or set HEADWATER_HOME to a folder that is"
    return DoctorCheck("State folder", ok, found, cure)


def _disk(home: Path) -> DoctorCheck:
    free_gib = shutil.disk_usage(_existing(home)).free / 2**30
    ok = free_gib >= MIN_DISK_GIB
    cure = "" if ok else f"free {MIN_DISK_GIB} GiB, or set HEADWATER_HOME to a folder on a larger disk"
    return DoctorCheck("Disk", ok, f"{free_gib:.0f} GiB free at {home}", cure)


def _ports(settings: Settings) -> Iterator[DoctorCheck]:
    ports = (
        ("Web port", "web", settings.web_port, "HEADWATER_WEB_PORT"),
        ("JDBC port", "thrift", settings.thrift_port, "HEADWATER_THRIFT_PORT"),
    )
    for name, service, port, setting in ports:
        started = read_pid_file(settings.home / "run" / f"{service}.pid")
        if is_port_free(port):
            yield DoctorCheck(name, ok=True, found=f"{port} is free")
        elif started and process_group(started):
            yield DoctorCheck(name, ok=True, found=f"{port} is in use by Headwater's own {service} service")
        else:
            cure = f"stop that, or set {setting} to a free port"
            yield DoctorCheck(name, ok=False, found=f"{port} is taken by {port_holder(port)}", cure=cure)


def _postgres(settings: Settings) -> DoctorCheck:
    if settings.postgres.url is not None or settings.home.is_dir() or not _home(settings.home).ok:
        return _answers(Postgres(settings.home, settings.postgres))
    with TemporaryDirectory(prefix="headwater-") as folder:  # a check makes no state folder
        trial = Postgres(Path(folder), settings.postgres)
        check = _answers(trial)
        if trial.server:
            trial.server.remove()
        return check


def _answers(postgres: Postgres) -> DoctorCheck:
    try:
        ran = postgres.server is None or postgres.server.running()
        with postgres.owner() as connection:
            row = connection.execute("SELECT current_setting('server_version')").fetchone()
        if ran:
            postgres.close()
        else:
            postgres.stop()
    except (DatabaseError, RuntimeError, OSError) as error:
        where = f"its log {postgres.server.log}" if postgres.server else "HEADWATER_POSTGRES__URL"
        return DoctorCheck("PostgreSQL", ok=False, found=str(error), cure=f"see {where}")
    found = f"{row[0] if row else '?'}{'' if ran else ' (starts)'}"
    if postgres.server:
        found += f", data in {postgres.server.data}"
    if left := [str(data) for data in abandoned_server_data()]:
        found += f"; belongs to no state folder any more, and can be deleted: {', '.join(left)}"
    return DoctorCheck("PostgreSQL", ok=True, found=found)


def _models(settings: Settings) -> Iterator[DoctorCheck]:
    """Yields what does not agree about models; nothing is opened or started where none was trained."""
    place = settings.training_place
    if not place.registry.names():
        return
    index = Index(Postgres(settings.home, settings.postgres))
    try:
        found = model_discrepancies(open_configured_lake(settings), index, place)
    except (DatabaseError, RuntimeError, OSError):
        return  # PostgreSQL's row says what is wrong
    for each in found:
        yield DoctorCheck("Models", ok=False, found=f"{each.about}: {each.found}", cure=each.cure)
    if not found:
        yield DoctorCheck("Models", ok=True, found="MLflow, registry, training sets, lake and index agree")
