"""The dataset card of a snapshot, in the form of the Hugging Face hub: YAML, then Markdown."""

import json
from typing import Any

from common.counts import counted
from training.datasets.training_set import EXAMPLE_SCHEMA, SPLITS, DatasetHeader, Split

_HUB_LICENCES = {
    *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0"),
    *("cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-sa-4.0"),
    *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "isc", "unlicense", "zlib"),
    *("artistic-2.0", "bsl-1.0", "epl-2.0", "odc-by", "odbl", "pddl", "wtfpl", "ofl-1.1", "postgresql"),
}
"""The licences that the hub has names for (https://huggingface.co/docs/hub/repositories-licenses)."""
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_TASKS = {
    "retrieval_pair": "text-retrieval",
    "ranked_list": "text-ranking",
    "instruction": "question-answering",
    "domain_text": "text-generation",
}


def dataset_card(header: DatasetHeader, files: dict[Split, str]) -> str:
    """Returns the README.md of an exported snapshot.

    Args:
        header: The snapshot.
        files: The path of each split's file in the exported folder; splits without examples have none.
    """
    total = sum(header.splits.values())
    about: dict[str, Any] = {
        "pretty_name": header.name,
        "license": sorted({_hub_licence(each) for each in header.licences}) or ["unknown"],
        "language": header.languages,
        "size_categories": [next((name for most, name in _SIZES if total < most), "n>1M")],
        "task_categories": [task for kind, task in _TASKS.items() if kind in header.kinds],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": path} for split, path in files.items()],
            }
        ],
        "dataset_info": {
            "config_name": "default",
            "splits": [{"name": split, "num_examples": header.splits[split]} for split in files],
        },
    }
    # A line of JSON is YAML: names and languages of users need no quoting of our own.
    yaml = "\n".join(f"{name}: {json.dumps(value)}" for name, value in about.items())
    said = [
        f"---\n{yaml}\n---\n",
        f"# {header.name}\n",
        f"Training examples made by Headwater from "
        f"{counted(header.documents, 'document')} of one tenant. "
        f"This is the snapshot `{header.address}`, made {header.made_at:%Y-%m-%d}.\n",
        "## What is in it\n",
        _table(("split", "examples"), [(split, header.splits[split]) for split in SPLITS]),
        _table(("kind", "examples"), list(header.kinds.items())),
        _table(("kind of question", "retrieval pairs"), list(header.query_kinds.items())),
        _table(("licence of the document", "examples"), list(header.licences.items())),
        f"Columns: {', '.join(f'`{name}`' for name in EXAMPLE_SCHEMA.names)}. A `retrieval_pair` has a "
        "`positive` and hard `negatives`, with the cosine of each to the question in `scores`; a "
        "`ranked_list` has `candidates`, best first, with the `teacher`'s `scores`; an `instruction` has its "
        "answer in `positive`, and `domain_text` its text.\n",
        "## How it was made\n",
        "Questions, instructions and definitions were made of the documents by rules, not written by "
        "people, and negatives were mined from the search index. The splits are by cluster of duplicate "
        f"documents; no text of `train` is within Jaccard {header.recipe['near_jaccard']} of one of "
        "`validation` or `test`.\n",
        _table(("table", "version"), sorted(header.versions.items())),
        _table(("setting", "value"), list(header.recipe.items())),
        f"Digest `{header.digest}`, code `{header.code_version}`, run `{header.run_id}`. Each row names its "
        "chunks and documents; `headwater trace` leads from them to the sources' bytes.\n",
    ]
    return "\n".join(each for each in said if each)


def _hub_licence(licence: str) -> str:
    """Returns the hub's name of an SPDX licence: `other` for one that it has none for."""
    name = licence.lower().removesuffix("-only").removesuffix("-or-later")
    return name if name in _HUB_LICENCES or name == "unknown" else "other"


def _table(names: tuple[str, str], rows: list[tuple[str, Any]]) -> str:
    if not rows:
        return ""
    lines = [f"| {left} | {right} |" for left, right in (names, ("---", "---:"), *rows)]
    return "\n".join(lines) + "\n"
