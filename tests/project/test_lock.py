"""The lock files in requirements/ hold what pyproject.toml asks for; `make lock` writes them."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.fences import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = {"serve": ["serve"], "files": ["files"], "all": ["train", "serve", "index", "ray", "dev"]}
LOCKS = ("build", *EXTRAS)


def lock_text(lock: str) -> str:
    return (ROOT / f"requirements/{lock}.txt").read_text()


def pins(lock: str) -> dict[str, str]:
    """Version by name of what the lock installs into this Python."""
    lines = re.findall(r"^(\S+==[^\\\n]+)", lock_text(lock), re.MULTILINE)
    requirements = [Requirement(line) for line in lines]
    here = [need for need in requirements if need.marker is None or need.marker.evaluate()]
    return {need.name: str(need.specifier).removeprefix("==") for need in here}


def direct(extra: str) -> list[Requirement]:
    """What an extra asks for; extras of our own that it names are followed."""
    needs = [Requirement(line) for line in PROJECT["optional-dependencies"][extra]]
    ours = [name for need in needs if need.name == PROJECT["name"] for name in need.extras]
    others = [need for need in needs if need.name != PROJECT["name"]]
    return [*others, *(need for name in ours for need in direct(name))]


def asked(lock: str) -> list[Requirement]:
    if lock == "build":
        return [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]
    base = [Requirement(line) for line in PROJECT["dependencies"]]
    return [*base, *(need for extra in EXTRAS[lock] for need in direct(extra))]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_a_version_within_each_range(lock: str) -> None:
    locked = pins(lock)
    needs = [need for need in asked(lock) if need.name != "torch"]
    assert not [str(need) for need in needs if locked.get(need.name, "none") not in need.specifier]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_versions_of_the_largest_lock(lock: str) -> None:
    everything = pins("all")
    assert not {name: v for name, v in pins(lock).items() if everything.get(name, v) != v}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_a_version_a_hash_or_a_comment(lock: str) -> None:
    line = re.compile(
        r"[a-z0-9-]+==[\w.]+( ; [^\\/]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|\s*#.*|"
    )
    assert not [text for text in lock_text(lock).splitlines() if not line.fullmatch(text)]


def test_the_lock_leaves_pytorch_to_the_makefile() -> None:
    assert not [name for name in pins("all") if re.match(r"torch$|nvidia-|cuda-|triton$", name)]
    wanted = next(need for need in direct("train") if need.name == "torch")
    files = [Path(name) for name in ("Makefile", "requirements/uv.toml")]
    versions = re.findall(
        r'torch(?:==|"\nversion = ")([\d.]+)', "".join(map(Path.read_text, files))
    )
    assert versions[0] == versions[1]
    assert versions[0] in wanted.specifier


def test_the_image_gets_neither_pytorch_nor_pyarrow() -> None:
    assert not {"torch", "lightning", "onnx", "pyarrow", "matplotlib"} & set(pins("serve"))
