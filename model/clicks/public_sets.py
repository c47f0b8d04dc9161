"""The public click sets that a program may fetch, where each is, and its terms."""

from dataclasses import dataclass
from typing import Literal

from model.errors import DownloadError

GROUPLENS = "https://files.grouplens.org"
SNAP = "https://snap.stanford.edu"
RESEARCH = "research only, no redistribution (GroupLens)"
MOVIELENS = (
    "research; cite Harper and Konstan (2015); redistribution under the same terms (GroupLens)"
)
AMAZON = "research; cite McAuley, Targett, Shi and van den Hengel (2015)"


@dataclass(frozen=True)
class PublicSet:
    """A click file at its official site.

    The checksum of the click file itself stays valid if the archive is packed again. If only the
    archive has a published checksum, that one is verified. Amazon and Zenodo publish neither.
    """

    host: str
    path: str  # of the URL, without a leading slash
    packing: Literal["plain", "tar", "zip", "zip of gzip"]
    member: str  # name within the archive
    file: str  # name to save the click file under
    terms: str
    sha256: str | None = None  # of the click file
    packed_sha256: str | None = None  # of the archive


def movielens(name: str, member: str, ending: str, terms: str, packed_sha256: str) -> PublicSet:
    """A set of GroupLens; its archive has the checksum that TensorFlow Datasets records."""
    return PublicSet(
        host=GROUPLENS,
        path=f"datasets/movielens/{name}.zip",
        packing="zip",
        member=f"{name}/{member}",
        file=f"{name}-ratings{ending}",
        terms=terms,
        packed_sha256=packed_sha256,
    )


def amazon(category: str) -> PublicSet:
    """Reviews of 2014 by people, and of products, with five or more of them; JSON lines."""
    file = f"reviews_{category}_5.json.gz"
    path = f"data/amazon/productGraph/categoryFiles/{file}"
    return PublicSet(SNAP, path, "plain", "", file, AMAZON)


PUBLIC_SETS = {
    "msnbc": PublicSet(
        host="https://archive.ics.uci.edu",
        path="static/public/133/msnbc+com+anonymous+web+data.zip",
        packing="zip of gzip",
        member="msnbc990928.seq.gz",
        file="msnbc990928.seq",
        sha256="982d85eb7aff1744e64d8bfadb21f53fb921b79d53b6305d4df232da59f218fe",
        terms="CC BY 4.0, credit msnbc.com and the UCI Machine Learning Repository",
    ),
    "wikispeedia": PublicSet(
        host=SNAP,
        path="data/wikispeedia/wikispeedia_paths-and-graph.tar.gz",
        packing="tar",
        member="wikispeedia_paths-and-graph/paths_unfinished.tsv",
        file="wikispeedia-paths-unfinished.tsv",
        sha256="499cf277fc4031034b3d47af775b32b4caf500c7c321c92357ba8688c755ff39",
        terms="cite West and Leskovec (2012) and West, Pineau and Precup (2009)",
    ),
    # The git blob 9ab8e3edb8742f8d8cc4911e3dee25e82a6fcc24, behind the published tables.
    "ml-1m": PublicSet(
        host="https://raw.githubusercontent.com",
        path="kang205/SASRec/master/data/ml-1m.txt",
        packing="plain",
        member="",
        file="ml-1m.txt",
        sha256="b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2",
        terms=RESEARCH,
    ),
    "ml-100k-ratings": movielens(
        "ml-100k",
        "u.data",
        ".tsv",
        RESEARCH,
        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    ),
    "ml-1m-ratings": movielens(
        "ml-1m",
        "ratings.dat",
        ".dat",
        RESEARCH,
        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    ),
    "ml-20m-ratings": movielens(
        "ml-20m",
        "ratings.csv",
        ".csv",
        MOVIELENS,
        "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    ),
    "ml-25m-ratings": movielens(
        "ml-25m",
        "ratings.csv",
        ".csv",
        MOVIELENS,
        "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
    ),
    "ml-latest-small-ratings": movielens(
        "ml-latest-small",
        "ratings.csv",
        ".csv",
        MOVIELENS,
        "696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
    ),
    "amazon-beauty": amazon("Beauty"),
    "amazon-sports": amazon("Sports_and_Outdoors"),
    "amazon-toys": amazon("Toys_and_Games"),
    "amazon-games": amazon("Video_Games"),
    "lastfm-1k": PublicSet(
        host="https://zenodo.org",
        path="records/6090214/files/lastfm-dataset-1K.tar.gz",
        packing="tar",
        member="lastfm-dataset-1K/userid-timestamp-artid-artname-traid-traname.tsv",
        file="lastfm-1k.tsv",
        terms="non-commercial use, credit Last.fm and Celma (2010)",
    ),
}
MANUAL = {
    "mind": "accept its terms at https://msnews.github.io and download MINDsmall_train.zip there; "
    "`persona` reads the behaviors.tsv in it",
    "retailrocket": "log in at https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset and "
    "download it there; `persona data inspect events.csv` says how to read it",
}


def find(name: str) -> PublicSet:
    """The set of that name.

    Raises:
        DownloadError: the name is unknown, or a person must accept the set's terms first.
    """
    if name in MANUAL:
        raise DownloadError(f"{name} cannot be downloaded by a program: {MANUAL[name]}")
    if name not in PUBLIC_SETS:
        known = ", ".join(PUBLIC_SETS)
        raise DownloadError(f"unknown set {name!r}, known are {known}")
    return PUBLIC_SETS[name]
