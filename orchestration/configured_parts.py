"""Whether what the settings name is there and answers: models, endpoints and the lake."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from assets.lake.tables import TABLES
from common.redaction import redact_urls
from inference.engines.generator import EngineConfig
from inference.engines.protocol import EngineError
from orchestration.settings import Settings
from retrieval.embedding.config import EmbeddingModelNotInstalled
from retrieval.rerank.reranker import RerankError
from retrieval.rerank.reranking import build_reranker

_ENDPOINT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class DoctorCheck:
    """The result of one check.

    Attributes:
        name: What was checked.
        ok: Whether it is as it should be.
        found: What was found, in words.
        cure: How to fix it; empty if nothing is wrong.
    """

    name: str
    ok: bool
    found: str
    cure: str = ""


def missing_model_files(settings: Settings) -> list[str]:
    """Returns a sentence per file or folder of a model that the settings name and that is not there.

    Nothing is opened: it takes no time.
    """
    generator, extractive = settings.generator, settings.generator.extractive
    embedder = settings.recipe.embedder
    named = {
        "HEADWATER_RECIPE__EMBEDDER__MODEL": None if embedder.endpoint.url else _embedder_path(settings),
        "HEADWATER_GENERATOR__MODEL": generator.model,
        "HEADWATER_GENERATOR__WORKER_PYTHON": generator.worker_python,
        "HEADWATER_GENERATOR__ROUTER_EXAMPLES": generator.router_examples,
        "HEADWATER_GENERATOR__EXTRACTIVE__SCORER": extractive.scorer,
        "HEADWATER_RERANKER__MODEL": settings.reranker.model,
        "HEADWATER_TRAINING__WORKER_PYTHON": settings.training.worker_python,
    }
    return [
        f"{path}, which {variable} names, is gone: bring it back, or set {variable} to another"
        for variable, path in named.items()
        if path is not None and not path.exists()
    ]


def _embedder_path(settings: Settings) -> Path:
    try:
        return settings.recipe.embedder.model_path
    except EmbeddingModelNotInstalled:
        return settings.recipe.embedder.model


def check_generator(config: EngineConfig) -> Iterator[DoctorCheck]:
    """Yields whether each engine that the settings name can answer; nothing for the extractive one."""
    if "local" in config.order and config.model is not None:
        from inference.engines.model_files import check_model_files

        cure = "set HEADWATER_GENERATOR__MODEL to a model's folder or a .gguf file, or unset it"
        try:
            check_model_files(config.model)
            python = config.worker_python
            if python is not None and not os.access(python, os.X_OK):
                cure = "set HEADWATER_GENERATOR__WORKER_PYTHON to the Python of an environment, or unset it"
                raise EngineError(f"no program {python}")
        except (EngineError, OSError) as error:
            yield DoctorCheck("Generator", ok=False, found=str(error), cure=cure)
        else:
            yield DoctorCheck("Generator", ok=True, found=str(config.model))
    if "endpoint" in config.order and config.endpoint:
        yield _endpoint(
            "Generator's endpoint",
            "HEADWATER_GENERATOR__ENDPOINT",
            config.endpoint,
            config.endpoint_model or "",
            config.api_key_env,
        )


def check_embedding_endpoint(settings: Settings) -> Iterator[DoctorCheck]:
    """Yields whether the embeddings endpoint answers; nothing where there is none."""
    endpoint = settings.recipe.embedder.endpoint
    if endpoint.url:
        yield _endpoint(
            "Embedder's endpoint",
            "HEADWATER_RECIPE__EMBEDDER__ENDPOINT__URL",
            endpoint.url,
            endpoint.model,
            endpoint.api_key_env,
        )


def check_reranker(settings: Settings) -> Iterator[DoctorCheck]:
    """Yields whether the reranker scores a text; nothing where there is none."""
    config = settings.reranker
    if not config.configured:
        return
    variable = "HEADWATER_RERANKER__MODEL" if config.model else "HEADWATER_RERANKER__ENDPOINT"
    try:
        reranker = build_reranker(config)
        reranker.scores("Is water wet?", ["Water is wet."], time.monotonic() + _ENDPOINT_TIMEOUT_S)
    except (RerankError, TimeoutError, OSError) as error:
        found = redact_urls(str(error)) or f"no answer within {_ENDPOINT_TIMEOUT_S:g} s"
        cure = f"mend that, or set {variable} to one that works, or unset it"
        yield DoctorCheck("Reranker", ok=False, found=found, cure=cure)
    else:
        yield DoctorCheck("Reranker", ok=True, found=reranker.name)


def check_lake(settings: Settings) -> DoctorCheck:
    """Returns whether the tables of the lake can be read; one that is not made yet is fine."""
    cure = "bring it back, restore a backup (`headwater restore`), or set HEADWATER_LAKE to where it is"
    root = redact_urls(settings.lake_root)
    made = (settings.home / "state.json").is_file()
    missing = []
    for table in TABLES.values():
        try:
            DeltaTable(f"{settings.lake_root}/{table.name.replace('.', '/')}")
        except TableNotFoundError:
            missing.append(table.name)
        except Exception as error:  # delta-rs raises whatever the file system says
            found = f"{table.name} in {root} can not be read: {redact_urls(str(error).splitlines()[0])}"
            return DoctorCheck("Lake", ok=False, found=found, cure=cure)
    if missing and made:
        found = f"{root} lacks {', '.join(missing)}"
        return DoctorCheck("Lake", ok=False, found=found, cure=cure)
    return DoctorCheck("Lake", ok=True, found=f"{root}{' (not made yet)' if missing else ''}")


def _endpoint(name: str, variable: str, url: str, model: str, key_env: str | None) -> DoctorCheck:
    """Asks an OpenAI-compatible service for its models, which costs nothing."""
    shown = redact_urls(url)
    key = os.environ.get(key_env) if key_env else None
    if key_env and not key:
        return DoctorCheck(name, ok=False, found=f"{key_env} is not set", cure=f"set {key_env} to the key")
    cure = f"start the service, or set {variable} to one that answers"
    try:
        answer = httpx.get(
            f"{url.rstrip('/').removesuffix('/v1')}/v1/models",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=_ENDPOINT_TIMEOUT_S,
        )
    except httpx.HTTPError as error:
        found = f"{shown} does not answer: {redact_urls(str(error)) or type(error).__name__}"
        return DoctorCheck(name, ok=False, found=found, cure=cure)
    if answer.status_code in (401, 403):
        cure = f"set {key_env} to a key that it takes" if key_env else "name the variable of its key"
        return DoctorCheck(name, ok=False, found=f"{shown} refuses the key ({answer.status_code})", cure=cure)
    if answer.status_code >= 500:
        return DoctorCheck(name, ok=False, found=f"{shown} answers {answer.status_code}", cure=cure)
    served = _served_models(answer)
    if served and model not in served:
        found = f"{shown} has no model {model!r}; it has {', '.join(served[:10])}"
        return DoctorCheck(
            name, ok=False, found=found, cure="name one of those in the setting beside the URL"
        )
    return DoctorCheck(name, ok=True, found=f"{model} at {shown}")


def _served_models(answer: httpx.Response) -> list[str]:
    """The models that a service lists; none where it lists none, which not every service does."""
    try:
        return [str(model["id"]) for model in answer.json()["data"]]
    except (ValueError, LookupError, TypeError):
        return []
