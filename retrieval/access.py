"""Access control: the scope that says who may read a row, and the token that proves who a reader is.

A document belongs to a tenant. Everybody of the tenant may read it, unless it was given groups: then only the
members of at least one of them may. A row carries both as one string, its *scope*, so that the database has
one equality to check. This module is the only place that encodes a scope or takes one apart.
"""

import hmac
import json
import secrets
from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.compute as pc

SCOPE_SEPARATOR = "\x1f"
"""Stands between tenant and groups in a scope; no name may hold it."""

SCOPE_SQL = f"concat_ws(chr({ord(SCOPE_SEPARATOR)}), tenant, nullif(access_groups, ''))"
"""A row's scope from its columns `tenant` and `access_groups`, for Spark and DuckDB."""

SCOPE_TENANT_SQL = f"split_part(scope, chr({ord(SCOPE_SEPARATOR)}), 1)"
"""The tenant of a column `scope`, for PostgreSQL."""

SCOPE_GROUPS_SQL = f"string_to_array(split_part(scope, chr({ord(SCOPE_SEPARATOR)}), 2), ',')"
"""The groups of a column `scope` as an array, empty for everybody, for PostgreSQL."""

ACCESS_KEY_BYTES = 64
"""Length of the access key: one block of SHA-256, which HMAC uses as it is (RFC 2104)."""

_INNER, _OUTER = 0x36, 0x5C
_UNPRINTABLE = {*map(chr, range(32)), "\x7f"}


def checked_tenant(tenant: str) -> str:
    """Returns the tenant unchanged if it is a valid name.

    Raises:
        ValueError: The name is empty or holds a control character.
    """
    if not tenant or _UNPRINTABLE & set(tenant):
        raise ValueError(
            f"no tenant: {tenant!r} names none; give the name of the tenant whose documents are searched"
        )
    return tenant


def encode_access_groups(groups: Iterable[str]) -> str | None:
    """Returns groups in their stored form: sorted, unique and joined by commas; None for everybody.

    Raises:
        ValueError: A name is empty, or holds a comma or a control character; or one text was given, which
            would be read as a group per letter.
    """
    if isinstance(groups, str):
        raise ValueError(f"groups are a list of names, not a text: give [{groups!r}]")
    names = sorted(set(groups))
    for name in names:
        if not name or "," in name or _UNPRINTABLE & set(name):
            raise ValueError(
                f"{name!r} can not name a group: it is empty, or holds a comma or a control character"
            )
    return ",".join(names) or None


def encode_scopes(tenants: pa.StringArray, access_groups: pa.StringArray) -> pa.StringArray:
    """Returns the scope of each row: one string for its tenant and its groups.

    Args:
        tenants: The tenant of each row.
        access_groups: The groups of each row, from `encode_access_groups`; null or empty for everybody.
    """
    separated = pc.if_else(pc.equal(pc.fill_null(access_groups, ""), ""), None, access_groups)
    with_groups = pc.binary_join_element_wise(tenants, separated, SCOPE_SEPARATOR)
    return pc.coalesce(with_groups, tenants)


def new_access_key() -> tuple[bytes, bytes, bytes]:
    """Returns a row of `headwater.access_key`: a new secret, and its inner and outer pads for HMAC."""
    secret = secrets.token_bytes(ACCESS_KEY_BYTES)
    return secret, bytes(b ^ _INNER for b in secret), bytes(b ^ _OUTER for b in secret)


def access_token(secret: bytes, transaction: str, tenant: str, groups: Collection[str]) -> str:
    """Returns the value of `headwater.access` with which one transaction reads as a user of a tenant.

    Args:
        secret: The access key.
        transaction: The value of `headwater.this_transaction()` in that transaction.
        tenant: The user's tenant.
        groups: The user's groups.

    Returns:
        HMAC-SHA-256 (64 hex digits) over the transaction and the claim, followed by the claim, a JSON object.

    Raises:
        ValueError: The tenant or a group is no valid name.
    """
    encode_access_groups(groups)
    claim = json.dumps({"tenant": checked_tenant(tenant), "groups": sorted(set(groups))})
    proof = hmac.new(secret, f"{transaction} {claim}".encode(), "sha256").hexdigest()
    return proof + claim
