"""Builds the engine that a configuration names: a local model, an endpoint, or else the extractive one."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field, model_validator

from common.redaction import redact_urls
from inference.engines.digest import engine_digest, model_files_digest, model_name
from inference.engines.extractive import ExtractiveConfig, ExtractiveEncoder, ExtractiveEngine
from inference.engines.generation import Quantization
from inference.engines.price import TokenPrice
from inference.engines.protocol import Engine, EngineError
from inference.engines.tiers import Route, TieredEngine
from inference.engines.worker.engine import WorkerEngine, Workplace
from inference.prompting.prompt_assembly import PromptConfig
from inference.routing.question_router import InvalidRouterExamples, QuestionRouter, read_scored_questions
from inference.scoring.answer_reader import AnswerReader
from inference.scoring.answer_scorer import BadAnswerScorer

Tier = Literal["extractive", "local", "endpoint"]


class EngineConfig(BaseModel):
    """The engine's configuration. Without a model or an endpoint, answers are quoted sentences."""

    model: Path | None = None
    """A folder with a causal language model in transformers' form, or a GGUF file."""
    worker_python: Path | None = None
    """The Python of an environment that answers with `model` in a process of its own, such as one with a GPU;
    unless set, this process loads the model (docs/answers.md)."""
    quantization: Quantization | None = None
    """What `model` is computed in, where not in the type of its weights: `int8` on a CPU, `fp8` on a GPU
    (docs/generation.md)."""
    endpoint: str | None = None
    """The base URL of an OpenAI-compatible service, such as `http://127.0.0.1:8000/v1`."""
    endpoint_model: str | None = None
    """The model's name at the endpoint."""
    api_key_env: str | None = None
    """The environment variable that holds the endpoint's key; None when it needs none."""
    timeout_s: float = Field(default=60.0, gt=0)
    """How long one call to the endpoint may take."""
    price: TokenPrice = TokenPrice()
    """The price of the endpoint's tokens, for the cost of each answer."""
    tiers: list[Tier] = []
    """Which engines are asked, the cheapest first: the next one where one fails or refuses. Unless set, the
    model or the endpoint answers, or else the extractive engine."""
    router_examples: Path | None = None
    """Questions with the score of each tier, in JSON lines (`text`, `scores`): each question begins at the
    tier that is the cheapest for its quality, as similar examples tell (docs/operations.md)."""
    requests_at_once: int = Field(default=8, ge=1)
    """How many questions of a batch are sent to the endpoint at the same time."""
    shard_questions: int = Field(default=100, ge=1)
    """How many questions of a batch an engine is given at once; their answers are one commit. A worker loads
    its model for each such shard."""
    max_new_tokens: int = Field(default=300, ge=1)
    """The length limit of a generated answer."""
    context: PromptConfig = PromptConfig()
    """Which of the retrieved passages a generator is shown, and in which order."""
    extractive: ExtractiveConfig = ExtractiveConfig()
    """How sentences are chosen when neither a model nor an endpoint is set."""

    @model_validator(mode="after")
    def _named_generators(self) -> "EngineConfig":
        if self.endpoint and not self.endpoint_model:
            raise ValueError(
                f"endpoint_model is missing: name the model to use at {redact_urls(self.endpoint)}"
            )
        if self.model and self.endpoint and not self.tiers:
            raise ValueError(
                "both a model and an endpoint are given: choose one generator, or set the order in tiers"
            )
        if self.quantization and not self.model:
            raise ValueError("quantization is set, and model, which is computed in it, is not")
        if self.worker_python and not self.model:
            raise ValueError("worker_python is set, and model, which the worker answers with, is not")
        if len(set(self.tiers)) < len(self.tiers):
            raise ValueError("tiers names an engine twice: name each once")
        if self.router_examples and len(self.tiers) < 2:
            raise ValueError("router_examples choose between tiers: set tiers to two engines or more")
        for tier, set_by, given in (("local", "model", self.model), ("endpoint", "endpoint", self.endpoint)):
            if tier in self.tiers and not given:
                raise ValueError(f"tiers names {tier}, and {set_by} is not set")
        return self

    @property
    def order(self) -> list[Tier]:
        """The engines that are asked, in order: one of them unless tiers are set."""
        return self.tiers or ["endpoint" if self.endpoint else "local" if self.model else "extractive"]

    def answers_as(self, other: "EngineConfig") -> bool:
        """Returns whether two configurations name one engine: their settings decide the same answers."""
        return self._deciding() == other._deciding()

    def _deciding(self) -> dict[str, object]:
        """The settings that decide answers. Keys, prices, time limits, places and unused engines do not."""
        unused = {"api_key_env", "timeout_s", "price", "requests_at_once", "tiers"}
        unused |= {"worker_python", "shard_questions"}
        if "extractive" not in self.order:
            unused.add("extractive")
        if "local" not in self.order:
            unused |= {"model", "quantization"}
        if "endpoint" not in self.order:
            unused |= {"endpoint", "endpoint_model"}
        if self.order == ["extractive"]:
            unused |= {"max_new_tokens", "context"}
        return self.with_absolute_paths().model_dump(mode="json", exclude=unused) | {"order": self.order}

    def with_absolute_paths(self) -> "EngineConfig":
        """Returns the configuration as it is read in any working directory."""
        scorer = _absolute(self.extractive.scorer)
        names = ("model", "worker_python", "router_examples")
        paths = {name: _absolute(getattr(self, name)) for name in names}
        extractive = self.extractive.model_copy(update={"scorer": scorer})
        return self.model_copy(update=paths | {"extractive": extractive})


def _absolute(path: Path | None) -> Path | None:
    return path.absolute() if path else None


def engine_name(config: EngineConfig) -> str:
    """Returns the name of the engine that a configuration names, as it is stored with each answer."""
    names = {
        "extractive": ExtractiveEngine.name,
        "local": f"{'worker' if config.worker_python else 'local'}:{model_name(config.model or Path())}",
        "endpoint": f"openai:{config.endpoint_model}",
    }
    return " > ".join(names[tier] for tier in config.order)


def build_engine(
    config: EngineConfig, encoder: ExtractiveEncoder, workplace: Workplace | None = None
) -> Engine:
    """Returns the engine that a configuration names; a local model is loaded here.

    Args:
        config: The configuration.
        encoder: The embedder of the extractive engine and of the router; it is part of their digest.
        workplace: Where a worker works; needed where the configuration names one.

    Raises:
        EngineError: The local model, or the extractive engine's scorer, can't be loaded.
    """
    tiers = [_build_tier(tier, config, encoder, workplace) for tier in config.order]
    if len(tiers) == 1:
        return tiers[0]
    if config.router_examples is None:
        return TieredEngine(tiers)
    examples = config.router_examples
    route = _route(config, encoder, examples)
    return TieredEngine(tiers, route, model_files_digest(examples), encoder.digest)


def approval_digest(engine: Engine) -> str:
    """Returns the digest of an engine less the embedder, about which the release of the index decides."""
    if isinstance(engine, TieredEngine):
        return engine_digest("tiers", engine.route_digest, *map(approval_digest, engine.tiers))
    return engine.settings_digest if isinstance(engine, ExtractiveEngine) else engine.digest


def _route(config: EngineConfig, encoder: ExtractiveEncoder, file: Path) -> Route:
    """Returns the router over the tiers, fitted on a file of scored questions."""
    try:
        examples = read_scored_questions(file, tuple(config.tiers))
    except InvalidRouterExamples as error:
        raise EngineError(str(error)) from error
    # Only an endpoint's answers cost money; without a price they still cost more than none.
    endpoint = (config.price.usd_per_million_input or 0) + (config.price.usd_per_million_output or 0) or 1.0
    router = QuestionRouter(
        encoder.encode_queries([example.text for example in examples]),
        np.array([example.scores for example in examples], np.float32),
        np.array([endpoint if tier == "endpoint" else 0.0 for tier in config.tiers], np.float32),
    )
    return lambda questions: router.choose(encoder.encode_queries(questions)).tolist()


def _build_tier(
    tier: Tier, config: EngineConfig, encoder: ExtractiveEncoder, workplace: Workplace | None
) -> Engine:
    if tier == "endpoint" and config.endpoint and config.endpoint_model:
        from inference.engines.endpoint import OpenAIEngine  # imports OpenAI's client, which takes a second

        return OpenAIEngine(
            config.endpoint,
            config.endpoint_model,
            config.api_key_env,
            config.timeout_s,
            config.max_new_tokens,
            context=config.context,
            requests_at_once=config.requests_at_once,
            price=config.price,
        )
    if tier == "local" and config.model and config.worker_python and workplace:
        return WorkerEngine(
            *(config.worker_python, config.model, workplace, config.max_new_tokens, config.context),
            config.quantization,
        )
    if tier == "local" and config.model:
        from inference.engines.local import LocalEngine  # imports torch, which takes seconds

        return LocalEngine(config.model, config.max_new_tokens, config.context, config.quantization)
    try:
        reader = AnswerReader(config.extractive.scorer)
    except BadAnswerScorer as error:
        raise EngineError(f"{error}: unset HEADWATER_GENERATOR__EXTRACTIVE__SCORER, or train one") from error
    return ExtractiveEngine(encoder, config.extractive, reader)
