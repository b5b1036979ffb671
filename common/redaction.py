"""Removes secrets from texts that are shown: the credentials in URLs, and given secret values.

Settings that are secrets are `pydantic.SecretStr`. This module is for other texts: errors, tracebacks,
arguments.
"""

import re
from collections.abc import Iterable

HIDDEN = "***"
"""Stands for a secret."""

CREDENTIALS_ADVICE = (
    "a URL with a user or a password in it is refused, for it would be stored with every document: give it "
    "without them, and the credentials to Spark, in the environment: HEADWATER_SPARK__CONF="
    '\'{"spark.hadoop.fs.s3a.access.key": "…", "spark.hadoop.fs.s3a.secret.key": "…"}\''
)
"""What to do instead of writing credentials into a URL."""

_SHORTEST_SECRET = 4
"""A shorter text would be taken out of words that only look like it."""

_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
"""Schemes that name a container before the @, as Hadoop's Azure file systems do."""

# Up to the last @: keys are base64 and hold slashes.
_USERINFO = re.compile(r"\b([a-z][a-z0-9+.-]*)://([^\s@'\"<>?#]+(?:@[^\s@'\"<>/?#]+)*)@", re.IGNORECASE)
_PARAMETER = re.compile(
    r"([?&;](?:password|secret|token|sig|signature|[a-z_-]*key)=)[^&;\s'\"]+", re.IGNORECASE
)


def has_credentials(url: str) -> bool:
    """Returns whether a URL has a user or a password before its host."""
    return redact_urls(url) != url


def redact_urls(text: str) -> str:
    """Returns a text with the credentials of every URL in it hidden."""
    return _PARAMETER.sub(rf"\1{HIDDEN}", _USERINFO.sub(_hide_userinfo, text))


def redact_secrets(text: str, secrets: Iterable[str]) -> str:
    """Returns a text with the given secrets and the credentials of every URL hidden."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return redact_urls(text)


def _hide_userinfo(match: re.Match[str]) -> str:
    scheme, before = match.groups()
    host = before.partition("/")[0]
    in_path = "/" in before and not re.search(r":(?!\d+$)", host)  # an @ after the host is part of a name
    is_container = scheme.lower() in _CONTAINERS and ":" not in before
    return match.group() if in_path or is_container else f"{scheme}://{HIDDEN}@"
