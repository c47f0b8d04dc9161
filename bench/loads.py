"""Histories to serve: lengths as real visitors have them, items from a catalogue of 50,000.

`films` are the lengths of ml-1m. `news` are those of MSNBC with 12 % of MIND's longer ones, which
comes nearest to the published news-like load (mean 7.8, p50 3, p90 15, p99 91): 7.9, 3, 17, 89.
`mind` are MIND's alone. All are cut to the newest 200. Where the files are absent, lengths are
drawn from their quantiles. Items are drawn by 1 / rank: what an encode costs depends on lengths.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CATALOGUE = 50_000
MAX_LENGTH = 200
MIND_SHARE = 0.12  # of the histories of `news`

Mix = Literal["news", "films", "mind"]
MIXES: tuple[Mix, ...] = get_args(Mix)
Lengths = NDArray[np.int64]
Rows = list[list[int]]

# Of the files, at these percentages.
PERCENT = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.9, 100)
QUANTILES = {
    "msnbc": (1, 1, 1, 1, 2, 2, 3, 5, 7, 11, 16, 31, 76, 200),
    "mind": (0, 3, 6, 9, 13, 18, 24, 33, 47, 76, 111, 200, 200, 200),
    "films": (5, 23, 34, 48, 68, 96, 136, 192, 200, 200, 200, 200, 200, 200),
}


def item_ids(n_items: int = CATALOGUE) -> list[str]:
    """The catalogue's ids; row r of the item table belongs to `n{r}`."""
    return [f"n{row}" for row in range(n_items)]


def lengths(mix: Mix, n: int, seed: int = 0, data: Path = DATA, most: int = MAX_LENGTH) -> Lengths:
    """History lengths of a mix, (n,), cut to the newest clicks."""
    rng = np.random.default_rng([seed, MIXES.index(mix)])
    if mix != "news":
        return _draw(mix, n, rng, data, most)
    shares = rng.random(n) < MIND_SHARE
    return np.where(shares, *(_draw(source, n, rng, data, most) for source in ("mind", "msnbc")))


def histories(mix: Mix, n: int, seed: int = 0, n_items: int = CATALOGUE) -> Rows:
    """Histories of a mix as rows of the item table."""
    return of_lengths(lengths(mix, n, seed), n_items, seed)


def of_lengths(sizes: Sequence[int] | Lengths, n_items: int = CATALOGUE, seed: int = 0) -> Rows:
    """Histories of given lengths; the item of rank r is drawn in proportion to 1 / r."""
    rng = np.random.default_rng(seed)
    ranks = (n_items + 1.0) ** rng.random(int(np.sum(sizes)))  # its density falls with 1 / rank
    # A fixed shuffle, so that popular items do not lie side by side in the table.
    rows = (ranks.astype(np.int64) - 1) * 7919 % n_items
    cuts = np.cumsum(sizes)[:-1]
    return [part.tolist() for part in np.split(rows, cuts)]


def _draw(source: str, n: int, rng: np.random.Generator, data: Path, most: int) -> Lengths:
    found = _read(source, data)
    if found is None:
        drawn = np.interp(rng.random(n) * 100, PERCENT, QUANTILES[source])
        return np.rint(drawn).astype(np.int64)
    return rng.choice(np.minimum(found, most), n)


def _read(source: str, data: Path) -> Lengths | None:
    """Lengths of every history in the file; None where it is absent."""
    readers = {
        "msnbc": ("msnbc990928.seq", _msnbc),
        "mind": ("mind-behaviors-sample.tsv", _mind),
        "films": ("ml-1m.txt", _films),
    }
    name, read = readers[source]
    path = data / name
    return read(path) if path.is_file() else None


def _msnbc(path: Path) -> Lengths:
    with path.open("rb") as lines:
        return np.array([len(line.split()) for line in lines if line[:1].isdigit()])


def _mind(path: Path) -> Lengths:
    with path.open(encoding="utf-8") as lines:
        return np.array([len(line.split("\t")[3].split()) for line in lines])


def _films(path: Path) -> Lengths:
    users = np.loadtxt(path, dtype=np.int64, usecols=0)
    return np.unique(users, return_counts=True)[1].astype(np.int64)
