"""Signatures of model folders in OpenSSF's model-signing form, by the key of the installation.

A folder that Headwater trained holds a manifest, and beside it lies a signature over all of its files: one
that was changed, or that another installation made, is not loaded.
"""

import hashlib
import os
from pathlib import Path

from common.atomic_files import atomic_file
from retrieval.embedding.model_folder import write_model_cache

MANIFEST = "headwater.json"
"""The file by which a folder says that Headwater trained it."""
_PRIVATE_KEY = "signing-key.pem"
_PUBLIC_KEY = "signing-key.pub"


class ModelNotTrusted(RuntimeError):
    """A model's files are not those that this installation signed; the message names the folder."""


def signature_path(folder: Path) -> Path:
    """Returns where the signature of a model folder lies."""
    return folder.with_name(f"{folder.name}.sig")


def sign_model(folder: Path, keys: Path) -> Path:
    """Signs all files of a folder, and returns the signature's path.

    Args:
        folder: The model.
        keys: The folder of the installation's keys; they are made where there are none.
    """
    from model_signing import signing  # imports sigstore, which takes a second

    _make_keys(keys)
    target = signature_path(folder)
    with atomic_file(target) as fresh:
        signing.Config().use_elliptic_key_signer(private_key=keys / _PRIVATE_KEY).sign(folder, fresh)
    return target


def require_trusted_model(folder: Path, keys: Path) -> None:
    """Returns if a folder was not trained by Headwater, or its files are those that were signed.

    The verdict is remembered in `keys` by the files' sizes and times, as digests are.

    Raises:
        ModelNotTrusted: A file was changed, or the signature is missing or by another key.
    """
    signature = signature_path(folder)
    if not (folder / MANIFEST).is_file() and not signature.is_file():
        return
    cure = "restore the folder from a backup, or train the model again"
    if not signature.is_file():
        raise ModelNotTrusted(f"{folder} has no signature at {signature}: {cure}")
    if not (keys / _PUBLIC_KEY).is_file():
        raise ModelNotTrusted(
            f"{folder} is signed, and there is no key at {keys / _PUBLIC_KEY} to check it by: copy the key "
            "of the installation that trained it, if you trust that one"
        )
    remembered = keys / "digests" / f"trusted-{_state(folder, signature, keys / _PUBLIC_KEY)}"
    if remembered.is_file():
        return
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys / _PUBLIC_KEY)
        verifier.verify(folder, signature)
    except Exception as error:  # the library's own classes, and those of cryptography and JSON
        # The library's message holds digests as bytes.
        raise ModelNotTrusted(f"{folder} or its signature is not what was signed: {cure}") from error
    write_model_cache(remembered, "")


def _state(folder: Path, *files: Path) -> str:
    state = hashlib.sha256(str(folder.resolve()).encode())
    for path in sorted([*folder.rglob("*"), *files]):
        stat = path.stat()
        state.update(f"\x1f{path}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}\x1f{stat.st_ino}".encode())
    return state.hexdigest()


def _make_keys(keys: Path) -> None:
    """Makes a pair of keys on NIST's curve P-256 unless there is one; the first of two at once wins."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = keys / _PRIVATE_KEY
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not private.is_file():
        made = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        scratch = keys / f".{_PRIVATE_KEY}-{os.getpid()}"
        scratch.touch(mode=0o600)
        scratch.write_bytes(made)
        try:
            os.link(scratch, private)
        except FileExistsError:
            pass
        finally:
            scratch.unlink()
    if not (keys / _PUBLIC_KEY).is_file():
        key = serialization.load_pem_private_key(private.read_bytes(), password=None)
        with atomic_file(keys / _PUBLIC_KEY) as fresh:
            fresh.write_bytes(
                key.public_key().public_bytes(
                    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
                )
            )
