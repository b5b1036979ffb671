"""The embedded server's passwords: one file in libpq's format that only the state folder's owner can read.

A connection is given the file's path (`passfile`), so no password is in a connection string, on a command
line, in the environment or in an error. The server gets the SCRAM-SHA-256 verifier of a password (RFC 5803),
not the password. See https://www.postgresql.org/docs/current/libpq-pgpass.html
"""

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path

from common.atomic_files import atomic_file

_ITERATIONS = 4096


def make_password_file(path: Path, roles: Sequence[str]) -> None:
    """Writes a file with a new random password per role; libpq refuses a file that others can read."""
    lines = [f"*:*:*:{role}:{secrets.token_hex(32)}\n" for role in roles]
    with atomic_file(path) as fresh:
        fresh.touch(mode=0o600)
        fresh.write_text("".join(lines))


def read_role_password(path: Path, role: str) -> str:
    """Returns a role's password.

    Raises:
        KeyError: The file has no password for this role.
    """
    rows = [line.rsplit(":", 2) for line in path.read_text().splitlines()]
    return {row[-2]: row[-1] for row in rows}[role]


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """Returns a password's SCRAM verifier: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = [b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{parts[0]}${parts[1]}:{parts[2]}"


def is_scram_verifier_of(verifier: str | None, password: str) -> bool:
    """Returns whether this is a SCRAM verifier of that password."""
    if not verifier or not verifier.startswith(f"SCRAM-SHA-256${_ITERATIONS}:"):
        return False
    salt = b64decode(verifier.split("$")[1].split(":")[1])
    return hmac.compare_digest(verifier, scram_verifier(password, salt))
