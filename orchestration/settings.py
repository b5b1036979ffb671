"""The settings: typed fields, set as `HEADWATER_<FIELD>`, in a group as `HEADWATER_<GROUP>__<FIELD>`."""

import difflib
import logging
import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Literal

from deltalake.exceptions import DeltaError
from pydantic import BaseModel, Field, IPvAnyAddress, PrivateAttr, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from assets.lake.lake import Lake
from assets.lake.lineage import WriteConflict
from assets.lake.spark import SparkConfig
from assets.recipe import Recipe
from common.redaction import CREDENTIALS_ADVICE, has_credentials, redact_urls
from inference.engines.generator import EngineConfig
from orchestration.migrations import migrate_state_folder
from orchestration.state_folder import default_state_folder
from retrieval.embedding.config import embedding_model_command, installable_embedding_models
from retrieval.rerank.reranker import RerankerConfig
from retrieval.store.postgres import PostgresConfig
from training.job_folder import TrainingWorker
from training.place import TrainingConfig, TrainingPlace
from training.registry.addresses import registered_embedder
from training.registry.versions import ModelRegistry

logger = logging.getLogger(__name__)

_OTHER_VARIABLES = ("HEADWATER_DEBUG",)
"""Variables that are no settings: with HEADWATER_DEBUG an error prints its traceback."""


class SqlSettings(BaseModel):
    """The limits of time and memory of one `headwater sql`."""

    timeout_s: float = Field(default=300, gt=0)
    """The longest that a query may take, the start of Spark included."""
    memory: str = Field(default="2g", pattern=r"^[1-9]\d*[mMgG]$")
    """Memory of the query's engine, and the size of its answer, in Java's notation."""

    @property
    def memory_bytes(self) -> int:
        """`memory` as a number."""
        return int(self.memory[:-1]) << (20 if self.memory[-1] in "mM" else 30)


class Settings(BaseSettings):
    """The settings of one state folder."""

    model_config = SettingsConfigDict(
        env_prefix="HEADWATER_", env_nested_delimiter="__", extra="forbid", hide_input_in_errors=True
    )

    home: Path = Field(default_factory=default_state_folder)
    """The state folder, outside which nothing is written: the nearest `.headwater` of yours upwards, or else
    the user's data folder, unless it is named."""
    lake: str | None = None
    """The folder of the tables, on any Hadoop file system; `lake` in the state folder unless set."""
    spark: SparkConfig = SparkConfig()
    """Where Spark runs."""
    postgres: PostgresConfig = PostgresConfig()
    """Where the index is; an embedded server in the state folder unless a URL is given."""
    recipe: Recipe = Recipe()
    """How each table is made."""
    generator: EngineConfig = EngineConfig()
    """What writes answers; the extractive default unless a model or an endpoint is given."""
    training: TrainingConfig = TrainingConfig()
    """Where models are trained; in this process unless another Python is given."""
    reranker: RerankerConfig = RerankerConfig()
    """What reorders the best hits; nothing unless a model or an endpoint is given."""
    model_memory_mb: int | None = Field(default=None, ge=1)
    """What the models of one process (embedder, scorer, reranker, generator) may take together; those that
    were not used for longest are given up. No limit unless set (docs/operations.md)."""
    max_shrink: float = Field(default=0.5, ge=0, le=1)
    """The largest share of a source's documents that may go at once; beyond it the source is not read."""
    releases_kept: int = Field(default=10, ge=1)
    """How many releases are kept, to be asked or rolled back to; rows of older ones are removed."""
    retention_days: int = Field(default=30, ge=0)
    """How long the files of a table version are kept after no release, gate or consumer needs it."""
    alert_webhook: SecretStr | None = None
    """A URL that a failed run is posted to, as JSON."""
    alert_command: list[str] = []
    """A program with its arguments that gets a failed run as JSON on its standard input."""
    owner: str = "team:headwater"
    """Who answers for the lake, as the web UI names them: `team:NAME`, or an e-mail address."""
    log_format: Literal["text", "json"] = "text"
    """How Dagster's services log; `json` also writes `logs/runs.jsonl`, an object per record of a run."""
    web_port: int = Field(default=3000, ge=1, le=65535)
    """The port of the Dagster web UI."""
    web_address: IPvAnyAddress = IPv4Address("127.0.0.1")
    """The address that the web UI listens on; one that other machines can reach wants `web_password`."""
    web_path_prefix: str = ""
    """The path under which the web UI lies, such as `/lake`, where a proxy serves more than it."""
    web_hosts: list[str] = []
    """Names that the web UI answers to beside `localhost`, such as that of a proxy; with a port where it is
    neither `web_port` nor the one that browsers leave out."""
    web_password: SecretStr | None = None
    """The password that the web UI asks for, with the name `headwater`; it asks nobody unless set."""
    thrift_port: int = Field(default=10000, ge=1, le=65535)
    """The port of the JDBC endpoint, on loopback."""
    thrift_memory: str = "1g"
    """Memory of the JDBC endpoint's JVM, in Java's notation."""
    mlflow_uri: str | None = None
    """The MLflow server that the registry of models is mirrored to, such as `http://127.0.0.1:5000`; a SQLite
    file in the state folder unless set. Credentials go into MLflow's own variables."""
    live_model_with_removed_documents: Literal["stays", "steps_down"] = "stays"
    """Whether a promoted model that learned from documents which were removed since stays live until another
    is promoted, or the one before it takes over, or the packaged embedder, or the base of an adapter
    (docs/lineage.md)."""
    openlineage_url: str | None = Field(default_factory=lambda: os.environ.get("OPENLINEAGE_URL"))
    """The OpenLineage endpoint that is told of runs, datasets and models, such as `http://127.0.0.1:5000`;
    that of the official client, OPENLINEAGE_URL, unless set. A key goes into OPENLINEAGE_API_KEY."""
    sql: SqlSettings = SqlSettings()
    """What one `headwater sql` may take."""

    @field_validator("owner")
    @classmethod
    def _team_or_address(cls, owner: str) -> str:
        if not re.fullmatch(r"team:[A-Za-z0-9_-]+|[^@\s]+@[^@\s]+\.[^@\s]+", owner):
            raise ValueError("give team:NAME, of letters, digits, - and _, or an e-mail address")
        return owner

    @field_validator("home", mode="before")
    @classmethod
    def _empty_names_none(cls, home: Any) -> Any:
        return home or default_state_folder()

    @field_validator("web_path_prefix")
    @classmethod
    def _path(cls, prefix: str) -> str:
        if not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", prefix):
            raise ValueError("give a path such as /lake, of letters, digits and -._~, without a / at its end")
        return prefix

    @field_validator("web_password")
    @classmethod
    def _not_empty(cls, password: SecretStr | None) -> SecretStr | None:
        if password is not None and not password.get_secret_value():
            raise ValueError("it is empty, so anybody could give it: set a password, or unset it")
        return password

    @field_validator("openlineage_url")
    @classmethod
    def _no_credentials_in_openlineage(cls, url: str | None) -> str | None:
        if url and has_credentials(url):
            raise ValueError("put the key of the endpoint into OPENLINEAGE_API_KEY, not into its URL")
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("it begins with http:// or https://")
        return url

    @field_validator("mlflow_uri")
    @classmethod
    def _no_credentials_in_mlflow(cls, uri: str | None) -> str | None:
        if uri and has_credentials(uri):
            raise ValueError("put the user and password into MLFLOW_TRACKING_USERNAME and …_PASSWORD")
        return uri

    @field_validator("lake")
    @classmethod
    def _no_credentials(cls, lake: str | None) -> str | None:
        if lake and has_credentials(lake):
            raise ValueError(CREDENTIALS_ADVICE)
        return lake

    _embedder_is_promoted: bool = PrivateAttr(default=False)

    def model_post_init(self, context: Any) -> None:
        """Makes the state folder's path absolute, and finds the embedder that the registry of models names.

        Raises:
            UnknownModel: The registry has no such version.
        """
        self.home = self.home.expanduser().absolute()
        embedder = self.recipe.embedder
        named = str(embedder.model) if "model" in embedder.model_fields_set else None
        folder = registered_embedder(self.models_folder, named)
        if folder is not None:
            embedder = embedder.model_copy(update={"model": folder})
            self._embedder_is_promoted = named is None
            self.recipe = self.recipe.model_copy(update={"embedder": embedder})

    @property
    def model_memory_bytes(self) -> int | None:
        """`model_memory_mb` in bytes."""
        return None if self.model_memory_mb is None else self.model_memory_mb * 1_000_000

    @property
    def lake_root(self) -> str:
        """The folder of the tables."""
        return self.lake or str(self.home / "lake")

    @property
    def answers_dir(self) -> Path:
        """The folder of the journal of answers."""
        return self.home / "answers"

    @property
    def batches_dir(self) -> Path:
        """The folder of question sets, which are answered as batches."""
        return self.answers_dir / "batches"

    @property
    def models_folder(self) -> Path:
        """The folder of models: keys, versions that were trained here, and converted ones."""
        return self.home / "models"

    @property
    def datasets_folder(self) -> Path:
        """The folder of training sets: what was asked for, and snapshots."""
        return self.home / "datasets"

    @property
    def training_place(self) -> TrainingPlace:
        """The folders that training reads and writes, and the registry of MLflow that follows."""
        python = self.training.worker_python
        worker = TrainingWorker(python.absolute()) if python else None
        return TrainingPlace(
            self.datasets_folder, self.home / "training", self.models_folder, self.mlflow_uri, worker
        )

    @property
    def worker_dir(self) -> Path:
        """The folder of the files that workers read and write."""
        return self.home / "worker"

    @property
    def dagster_home(self) -> Path:
        """The folder in which Dagster keeps its runs and events."""
        return self.home / "dagster"

    @property
    def sources_file(self) -> Path:
        """The file that lists the sources."""
        return self.home / "sources.json"

    @property
    def user_suites_folder(self) -> Path:
        """The folder of the suites that users added to gates."""
        return self.home / "gates"

    @property
    def data_docs_folder(self) -> Path:
        """The folder of Data Docs."""
        return self.home / "data_docs"

    @property
    def data_docs_url(self) -> str:
        """The path at which the web UI serves Data Docs."""
        return f"{self.web_path_prefix}/data_docs"

    @property
    def mlflow_url(self) -> str:
        """The path at which the web UI serves MLflow's pages."""
        return f"{self.web_path_prefix}/mlflow"


def open_configured_lake(settings: Settings) -> Lake:
    """Opens the lake of a state folder; missing tables are made, an older state is migrated.

    Answers that are still in the journal are committed, so that every reader sees them. Where that fails,
    they stay in the journal, a warning says so, and the lake is opened all the same.

    Raises:
        NewerStateFolder: The folder was made by a newer Headwater.
    """
    lake = Lake(
        settings.lake_root,
        settings.spark,
        settings.home / "spark",
        settings.data_docs_folder,
        settings.data_docs_url,
    )
    migrate_state_folder(settings.home, lake, settings.postgres)
    if any(settings.answers_dir.glob("journal.*")):
        from assets.answers.journal import AnswerJournal

        try:
            AnswerJournal(settings.answers_dir).commit(lake)
        except (OSError, WriteConflict, DeltaError) as error:
            logger.warning("answers stay in %s until they can be committed: %s", settings.answers_dir, error)
    return lake


def settings_of_next_run(settings: Settings) -> Settings:
    """Returns the settings by which a run makes the index: those given, unless the live model steps down.

    A model steps down by another index, made of the tables as they are now: a release of before would bring
    the removed documents back.
    """
    if settings.live_model_with_removed_documents == "stays" or not settings._embedder_is_promoted:
        return settings
    from assets.training_sets.learned import embedder_without_removed

    live = settings.recipe.embedder
    taken = embedder_without_removed(
        open_configured_lake(settings), ModelRegistry(settings.models_folder), live
    )
    if taken is live:
        return settings
    return settings.model_copy(update={"recipe": settings.recipe.model_copy(update={"embedder": taken})})


def unknown_setting_variables(settings: Settings) -> dict[str, str | None]:
    """Returns `HEADWATER_` variables that are not settings, each with the most similar setting."""
    names = [setting.variable for setting in list_settings(settings)]
    # A group may be set as a whole, in JSON.
    known = {*_OTHER_VARIABLES, *(name.rsplit("__", above)[0] for name in names for above in range(4))}
    ours = [name for name in sorted(os.environ) if name.upper().startswith("HEADWATER_")]
    return {
        name: next(iter(difflib.get_close_matches(name.upper(), names, 1)), None)
        for name in ours
        if name.upper() not in known
    }


@dataclass(frozen=True)
class SettingValue:
    """One setting: its environment variable, its value, and where it comes from."""

    variable: str
    value: str
    origin: str

    def to_dict(self) -> dict[str, str]:
        """Returns it as `headwater settings --json` prints it."""
        return {"setting": self.variable, "value": self.value, "from": self.origin}


def list_settings(settings: BaseModel, prefix: str = "HEADWATER_") -> list[SettingValue]:
    """Returns every setting, those of groups included, in the order in which they are declared."""
    rows = []
    for name in type(settings).model_fields:
        value, variable = getattr(settings, name), f"{prefix}{name}".upper()
        if isinstance(value, BaseModel):
            rows += list_settings(value, f"{variable}__")
            continue
        origin = "environment" if variable in os.environ else "default"
        rows.append(SettingValue(variable, redact_urls(str(value)), origin))
    return rows


def list_installable_embedders() -> list[SettingValue]:
    """Returns the folders of embedders that can be named by `HEADWATER_RECIPE__EMBEDDER__MODEL`.

    The origin is the command that installs one.
    """
    return [
        SettingValue(f"embedders.{name}", str(folder), embedding_model_command(name))
        for name, folder in installable_embedding_models().items()
    ]


def secret_setting_values(settings: BaseModel) -> list[str]:
    """Returns every secret that the settings hold, so that it can be taken out of a text."""
    found = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for each in value.values() if isinstance(value, dict) else [value]:
            if isinstance(each, SecretStr):
                found.append(each.get_secret_value())
            elif isinstance(each, BaseModel):
                found += secret_setting_values(each)
    return found
