"""Who may read what: the scope that a row carries, and the proof that a reader is who the application says.

A document belongs to a tenant, and everybody of it may read it unless it was given groups: then those who are
in one of them. Both are one string, the row's *scope*, so that the database checks one equality.
"""

import hmac
import json
import secrets
from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.compute as pc

SCOPE_SEPARATOR = "\x1f"
"""Between tenant and groups in a scope; no name holds it."""

ACCESS_KEY_BYTES = 64
"""Of the access key: one block of SHA-256, so that it is used as it is (RFC 2104)."""

_INNER, _OUTER = 0x36, 0x5C
_UNPRINTABLE = {*map(chr, range(32)), "\x7f"}


def checked_tenant(tenant: str) -> str:
    """The tenant, if it can be one.

    Raises:
        ValueError: It is empty or holds a control character.
    """
    if not tenant or _UNPRINTABLE & set(tenant):
        raise ValueError(
            f"no tenant: {tenant!r} is none; a search needs the name of the tenant that it is for"
        )
    return tenant


def encode_access_groups(groups: Iterable[str]) -> str | None:
    """Groups as the lake and the index keep them: sorted, once each, joined by commas; None for everybody.

    Raises:
        ValueError: A name is empty, or holds a comma or a control character.
    """
    names = sorted(set(groups))
    for name in names:
        if not name or "," in name or _UNPRINTABLE & set(name):
            raise ValueError(f"{name!r} can not name a group: it is empty, or holds a comma or a control")
    return ",".join(names) or None


def encode_scopes(tenants: pa.StringArray, group_sets: pa.StringArray) -> pa.StringArray:
    """Each row's scope from its tenant and its `group_set`, null or empty for everybody."""
    separated = pc.if_else(pc.equal(pc.fill_null(group_sets, ""), ""), None, group_sets)
    with_groups = pc.binary_join_element_wise(tenants, separated, SCOPE_SEPARATOR)
    return pc.coalesce(with_groups, tenants)


def new_access_key() -> tuple[bytes, bytes, bytes]:
    """A new secret, and it with HMAC's inner and outer pad: a row of `headwater.access_key`."""
    secret = secrets.token_bytes(ACCESS_KEY_BYTES)
    return secret, bytes(b ^ _INNER for b in secret), bytes(b ^ _OUTER for b in secret)


def access_token(secret: bytes, transaction: str, tenant: str, groups: Collection[str]) -> str:
    """What one transaction sets as `headwater.access` to read as a user of a tenant.

    Args:
        secret: The access key.
        transaction: What `headwater.this_transaction()` says in it.
        tenant: Whose rows.
        groups: Those that the user is in.

    Returns:
        HMAC-SHA-256 (64 hex digits) over the transaction and the claim, and the claim, a JSON object.

    Raises:
        ValueError: The tenant or a group can not be one.
    """
    encode_access_groups(groups)
    claim = json.dumps({"tenant": checked_tenant(tenant), "groups": sorted(set(groups))})
    proof = hmac.new(secret, f"{transaction} {claim}".encode(), "sha256").hexdigest()
    return proof + claim
