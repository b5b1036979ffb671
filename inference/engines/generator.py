"""Builds the engine that a configuration names: a local model, an endpoint, or else the extractive one."""

from pathlib import Path

from pydantic import BaseModel, Field, model_validator

from inference.engines.extractive import ExtractiveConfig, ExtractiveEncoder, ExtractiveEngine
from inference.engines.protocol import Engine
from inference.prompting.prompt_assembly import PromptConfig
from retrieval.redaction import redact_urls


class EngineConfig(BaseModel):
    """The engine's configuration. Without a model or an endpoint, answers are quoted sentences."""

    model: Path | None = None
    """A folder with a causal language model in transformers' form, or a GGUF file."""
    endpoint: str | None = None
    """The base URL of an OpenAI-compatible service, such as `http://127.0.0.1:8000/v1`."""
    endpoint_model: str | None = None
    """The model's name at the endpoint."""
    api_key_env: str | None = None
    """The environment variable that holds the endpoint's key; None when it needs none."""
    timeout_s: float = Field(default=60.0, gt=0)
    """How long one call to the endpoint may take."""
    max_new_tokens: int = Field(default=300, ge=1)
    """The length limit of a generated answer."""
    context: PromptConfig = PromptConfig()
    """Which of the retrieved passages a generator is shown, and in which order."""
    extractive: ExtractiveConfig = ExtractiveConfig()
    """How sentences are chosen when neither a model nor an endpoint is set."""

    @model_validator(mode="after")
    def _one_generator(self) -> "EngineConfig":
        if self.model and self.endpoint:
            raise ValueError("both a model and an endpoint are given: choose one generator")
        if self.endpoint and not self.endpoint_model:
            raise ValueError(
                f"endpoint_model is missing: name the model to use at {redact_urls(self.endpoint)}"
            )
        return self


def build_engine(config: EngineConfig, encoder: ExtractiveEncoder) -> Engine:
    """Returns the engine that a configuration names; a local model is loaded here.

    Raises:
        EngineError: The local model can't be loaded.
    """
    if config.endpoint and config.endpoint_model:
        from inference.engines.endpoint import OpenAIEngine

        return OpenAIEngine(
            config.endpoint,
            config.endpoint_model,
            config.api_key_env,
            config.timeout_s,
            config.max_new_tokens,
            context=config.context,
        )
    if config.model:
        from inference.engines.local import LocalEngine  # imports torch, which takes seconds

        return LocalEngine(config.model, config.max_new_tokens, config.context)
    return ExtractiveEngine(encoder, config.extractive)
