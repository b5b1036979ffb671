"""Stable ids: they depend on content and location only, never on the order of arrival."""

import hashlib
import json

from pydantic import BaseModel

SEPARATOR = "\x1f"


def doc_id(tenant: str, source: str, uri: str) -> str:
    """Returns a document's id: 64 hex digits, a hash of its tenant, source and URI."""
    return hashlib.sha256(SEPARATOR.join((tenant, source, uri)).encode()).hexdigest()


DOC_ID_SQL = f"sha2(concat_ws(chr({ord(SEPARATOR)}), {{tenant}}, {{source}}, uri), 256)"
"""`doc_id` as SQL of the engine's relations over a column `uri`, with the values `tenant` and `source`."""


def config_digest(algorithm: str, config: BaseModel | None = None) -> str:
    """Returns a digest of what decides an asset's output besides its inputs: algorithm version and settings.

    Args:
        algorithm: A name with a version, changed by hand when the code's result changes.
        config: Its settings.

    Returns:
        16 hex digits.
    """
    settings = config.model_dump(mode="json") if config is not None else {}
    text = json.dumps([algorithm, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
