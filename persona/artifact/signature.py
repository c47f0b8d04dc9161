"""Signatures of artifacts: they prove who made one; checksums only prove that it is complete.

`signature.ed25519` is the Ed25519 signature (RFC 8032) of `manifest.sha256`. This is the checksum
of the manifest, which has the checksums of all other files. It needs the extra `signed`.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from persona.artifact.errors import ArtifactError
from persona.artifact.format import MANIFEST_CHECKSUM, SIGNATURE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def new_keys(private: Path, public: Path) -> None:
    """Writes a new private key, readable only by its owner, and its public key.

    Raises:
        ArtifactError: the private key's file exists.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # of an extra
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  # of an extra

    key = ed25519.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        file = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ArtifactError(f"{private} exists; a private key is never overwritten") from None
    with os.fdopen(file, "wb") as opened:
        opened.write(secret)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(pem, spki))


def sign(folder: Path, private: Path) -> Path:
    """Signs the artifact in `folder`; returns the signature's file.

    Raises:
        ArtifactError: there is no artifact, or the key is not an Ed25519 private key in PEM.
    """
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  # of an extra
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # of an extra
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(_read(private), password=None)
    except (ValueError, TypeError):
        raise ArtifactError(f"{private}: not a private key in PEM without a password") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ArtifactError(f"{private}: not an Ed25519 key")
    signature = folder / SIGNATURE
    signature.write_bytes(key.sign(_read(folder / MANIFEST_CHECKSUM)))
    return signature


def check_signature(folder: Path, trusted: Iterable[Path]) -> None:
    """Checks that one of the trusted public keys has signed the artifact in `folder`.

    Raises:
        ArtifactError: it is not signed by any of them, or a key cannot be read.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # of an extra

    keys = [_public_key(path) for path in trusted]
    signature = _read(folder / SIGNATURE)
    signed = _read(folder / MANIFEST_CHECKSUM)
    for key in keys:
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            continue
        return
    raise ArtifactError(f"{folder / SIGNATURE}: made by none of the {len(keys)} trusted keys")


def _public_key(path: Path) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  # of an extra
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # of an extra
        load_pem_public_key,
    )

    try:
        key = load_pem_public_key(_read(path))
    except ValueError:
        raise ArtifactError(f"{path}: not a public key in PEM") from None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ArtifactError(f"{path}: not an Ed25519 key")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: {(error.strerror or str(error)).lower()}") from None
