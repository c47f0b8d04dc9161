"""Signed artifacts: which are opened, and which are not."""

import shutil
from pathlib import Path

import pytest

from persona.artifact import ArtifactError, open_artifact
from persona.artifact.format import MANIFEST_CHECKSUM, SIGNATURE
from persona.artifact.signature import new_keys, sign
from persona.engine import Engine, Limits

Keys = tuple[Path, Path]  # private, public


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    private, public = tmp_path / "signing.pem", tmp_path / "signing.pub.pem"
    new_keys(private, public)
    return private, public


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1"))


def test_an_artifact_that_a_trusted_key_signed_is_opened(artifact: Path, keys: Keys) -> None:
    sign(artifact, keys[0])
    limits = Limits(trusted_keys=(keys[1],))
    assert Engine.open(artifact, limits=limits).registry.find("tiny").manifest.name == "tiny"


def test_a_signed_artifact_opens_where_nobody_asks(artifact: Path, keys: Keys) -> None:
    sign(artifact, keys[0])
    assert open_artifact(artifact).manifest.name == "tiny"


def test_an_unsigned_artifact_is_refused(artifact: Path, keys: Keys) -> None:
    with pytest.raises(ArtifactError, match=f"{SIGNATURE}: no such file"):
        open_artifact(artifact, [keys[1]])


def test_a_strangers_signature_is_refused(artifact: Path, keys: Keys, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.pem"
    new_keys(stranger, tmp_path / "stranger.pub.pem")
    sign(artifact, stranger)
    with pytest.raises(ArtifactError, match="by none of the 1 trusted keys"):
        open_artifact(artifact, [keys[1]])


def test_a_signature_is_of_one_content(artifact: Path, keys: Keys) -> None:
    signature = sign(artifact, keys[0])
    (artifact / MANIFEST_CHECKSUM).write_bytes(b"0" * 64 + b"  manifest.json\n")
    with pytest.raises(ArtifactError):
        open_artifact(artifact, [keys[1]])
    assert signature.is_file()


def test_a_private_key_is_its_owners_and_never_overwritten(keys: Keys) -> None:
    assert keys[0].stat().st_mode & 0o777 == 0o600
    with pytest.raises(ArtifactError, match="never overwritten"):
        new_keys(*keys)


def test_a_file_that_is_no_private_key_is_named(artifact: Path, keys: Keys) -> None:
    keys[0].write_text("no key")
    with pytest.raises(ArtifactError, match="not a private key"):
        sign(artifact, keys[0])


def test_a_file_that_is_no_public_key_is_named(artifact: Path, keys: Keys) -> None:
    sign(artifact, keys[0])
    keys[1].write_text("no key")
    with pytest.raises(ArtifactError, match="not a public key"):
        open_artifact(artifact, [keys[1]])
