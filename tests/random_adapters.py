"""Adapters with random weights over a model on disk, in PEFT's form, as a job would register them."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from training.generator.network import AdapterNetwork
from training.jobs.plan import GeneratorTraining
from training.registry.learned_texts import LearnedTexts
from training.registry.lineage import ModelLineage
from training.registry.live_adapters import generator_name
from training.registry.model_card import adapter_card
from training.registry.versions import ModelRegistry, ModelVersion


def save_random_adapter(base: Path, folder: Path, seed: int) -> Path:
    """Writes an adapter that changes what the base writes, and returns its folder."""
    import torch

    network = AdapterNetwork(base, GeneratorTraining(seed=seed, rank=4))
    torch.manual_seed(seed)
    with torch.no_grad():
        for _, parameter in network.named_parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    folder.mkdir(parents=True, exist_ok=True)
    network.save(folder)
    return folder


def register_random_adapter(
    registry: ModelRegistry,
    base: Path,
    base_digest: str,
    tenant: str | None,
    seed: int,
    learned: Collection[str] = (),
    questions: Collection[str] = (),
    **changed: Any,
) -> ModelVersion:
    """Adds a version of a tenant's adapter, or of that of all tenants, which learned from texts."""
    lineage = ModelLineage(
        dataset="mine@1234",
        dataset_digest="ab" * 32,
        base=str(base),
        base_digest=base_digest,
        code_version="1",
        run_id=f"{generator_name(tenant)}-{seed}",
        settings={},
        tenant=tenant,
    ).model_copy(update=changed)

    def write(folder: Path) -> None:
        save_random_adapter(base, folder, seed)

    return registry.add(
        generator_name(tenant),
        lineage,
        {},
        1.0,
        write,
        adapter_card,
        LearnedTexts(documents=learned, questions=questions),
    )
