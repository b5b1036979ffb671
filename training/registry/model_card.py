"""The model card of a version, in the form that model hubs read: a header of YAML, and Markdown."""

from pathlib import Path

from training.registry.versions import ModelVersion


def model_card(version: ModelVersion) -> str:
    """Returns a model card (Mitchell et al., "Model Cards for Model Reporting", 2019)."""
    lineage = version.lineage
    tenants = lineage.tenants
    whose = f" of the tenant{'s' if len(tenants) > 1 else ''} {' and '.join(tenants)}" if tenants else ""
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags: [sentence-transformers, feature-extraction, headwater]
---

# {version.address}

An embedder trained by Headwater from {lineage.base} (digest `{lineage.base_digest}`) on {lineage.dataset}
(digest `{lineage.dataset_digest}`){whose}. Its digest
is `{version.digest}`; made at {version.made_at:%Y-%m-%d %H:%M} UTC by job `{lineage.run_id}` of code version
{lineage.code_version}, in {version.seconds:.0f} s. The terms of the base and of the texts that it learned
from hold for it.

Its weights are the mean of those that were trained and of the base's, which have the share `base_share`.

Meant for searching texts like those that it learned from. It was not measured on others: compare it with the
base there (`headwater models compare`).

{_tables(version)}"""


def adapter_card(version: ModelVersion) -> str:
    """Returns the model card of a generator's adapter."""
    lineage = version.lineage
    whose = f"the tenant {lineage.tenant}" if lineage.tenant else "all tenants"
    return f"""---
library_name: peft
pipeline_tag: text-generation
tags: [lora, peft, headwater]
---

# {version.address}

A low-rank adapter (LoRA) for {whose}, trained by Headwater over {Path(lineage.base).name} (digest
`{lineage.base_digest}`) on {lineage.dataset} (digest `{lineage.dataset_digest}`). Its digest is
`{version.digest}`; made at {version.made_at:%Y-%m-%d %H:%M} UTC by job `{lineage.run_id}` of code version
{lineage.code_version}, in {version.seconds:.0f} s. The terms of the base and of the texts that it learned
from hold for it.

Meant for answering from passages like those that it learned from, over that base alone. Its losses are in
nats a token; `headwater models compare {version.address}` measures its answers.

{_tables(version)}"""


def _tables(version: ModelVersion) -> str:
    figures = "\n".join(f"| {name} | {value:.6g} |" for name, value in version.metrics.items())
    settings = "\n".join(f"| {name} | {value} |" for name, value in version.lineage.settings.items())
    return f"""| figure | value |
|---|---|
{figures}

| setting | value |
|---|---|
{settings}
"""
