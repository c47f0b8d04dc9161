"""`python -m tests.ranges`: the oldest and the newest packages that pyproject.toml allows work.

For each end of the ranges, the wheel is installed with its extras `serve` and `files` into an empty
environment. There `persona score` scores a file with the shipped artifacts: this runs the command
line, the engine, and the reading and writing of files. Ranges of `train` and `dev` are not tried:
they are narrow, and the whole test suite runs on their locked versions.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
ENDS = {"oldest": "lowest-direct", "newest": "highest"}
USERS = '{"id": "ann", "history": ["frontpage", "news"]}\n{"id": "bob", "history": []}\n'


def main() -> None:
    """Tries both ends of the ranges; exits with status 1 if one of them does not work."""
    failed = [end for end, resolution in ENDS.items() if not works(end, resolution)]
    if failed:
        sys.exit(f"ranges: failed with the {' and the '.join(failed)} packages")


def works(end: str, resolution: str) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder / "venv", resolution)
        done = score(folder)
        print(f"ranges: {end} packages: {'passed' if done else 'FAILED'}", flush=True)
        return done


def install(venv: Path, resolution: str) -> None:
    """Installs the wheel, and prints which packages it got."""
    options = ["--resolution", resolution, "--refresh-package", "persona-encoder"]
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    subprocess.run(
        [UV, "pip", "install", "--python", venv, *options, f"{ROOT}[serve,files]"], check=True
    )


def score(folder: Path) -> bool:
    users, embeddings = folder / "users.jsonl", folder / "embeddings.parquet"
    users.write_text(USERS)
    options = ["--artifact", ROOT / "artifacts", "--input", users, "--output", embeddings]
    done = subprocess.run(
        [folder / "venv/bin/persona", "score", *map(str, options)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        timeout=100,
        check=False,
    )
    return done.returncode == 0 and embeddings.stat().st_size > 0


if __name__ == "__main__":
    main()
