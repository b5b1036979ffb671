"""Stable identities: content and place decide them, never an order of arrival."""

import hashlib
import json

from pydantic import BaseModel

SEPARATOR = "\x1f"


def doc_id(tenant: str, source: str, uri: str) -> str:
    """The identity of a document: 64 hex digits over where it lives and whose it is."""
    return hashlib.sha256(SEPARATOR.join((tenant, source, uri)).encode()).hexdigest()


DOC_ID_SQL = f"sha2(concat_ws(chr({ord(SEPARATOR)}), {{tenant}}, {{source}}, uri), 256)"
"""`doc_id` as SQL of the engine's relations over a column `uri`, with the values `tenant` and `source`."""


def config_digest(algorithm: str, config: BaseModel | None = None) -> str:
    """What decides an asset's output besides its input: the algorithm's version and its settings.

    Args:
        algorithm: A name with a version, changed by hand when the code's result changes.
        config: Its settings.

    Returns:
        16 hex digits.
    """
    settings = config.model_dump(mode="json") if config is not None else {}
    text = json.dumps([algorithm, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
