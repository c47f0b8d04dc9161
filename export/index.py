"""Builds the index of a large item table, and measures it on users before it is written.

Inverted lists with 8 bits a number (faiss, IVF and SQ8): k-means parts the items into lists, and a
search looks into the lists whose centres have the largest products with the user embedding. The
engine asks for some more items than are wanted and computes their exact scores, so the 8 bits cost
no order, and next to no recall.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ExportError, RecallError
from model.clicks.histories import Histories, encoder_inputs
from model.network.encoder import UserEncoder
from persona.artifact.format import INDEX_SURPLUS, ITEM_INDEX, IndexFact
from persona.contract import Floats

LEAST_RECALL = 0.95  # at 100; an index below it is not written
WANTED_RECALL = 0.97  # for which the lists are chosen: other users may be harder
AT = 100
USERS = 1000
TRAINED_ON = 64  # items a list
LEAST_ITEMS = 1000
SEED = 0


def sample_users(encoder: UserEncoder, histories: Histories) -> Floats:
    """The user embeddings of some histories, (U, D); of all where there are few.

    Raises:
        ExportError: there are too few to measure an index on, or nothing would search it.
    """
    if encoder.candidates is not None:
        raise ExportError("an encoder with source-target attention scores items without an index")
    if len(histories) < 2:
        raise ExportError(f"{len(histories)} users are too few to measure an index on")
    users = np.random.default_rng(SEED).permutation(len(histories))[:USERS]
    timed = encoder.config.time != "none"
    parts = []
    for start in range(0, len(users), 64):
        chosen = histories.select(users[start : start + 64])
        inputs = encoder_inputs(chosen, *encoder.config.window, timed=timed)
        with torch.no_grad():
            parts.append(encoder.encode(*map(torch.from_numpy, inputs))[0].numpy())  # (B, D)
    return np.concatenate(parts)


def write_index(table: Floats, users: Floats, folder: Path) -> IndexFact:
    """Builds the index and writes it into an artifact's folder.

    The number of lists to look into is chosen on the first half of the users. The recall is that of
    the other half.

    Args:
        table: (n_items, D), without the row of unknown items.
        users: (U, D) user embeddings, at least two.
        folder: of the artifact.

    Raises:
        ExportError: the catalogue is too small for an index.
        RecallError: the recall stays below the least that is allowed.
    """
    if len(table) < LEAST_ITEMS:
        raise ExportError(f"{len(table):,} items need no index; from {LEAST_ITEMS:,} on")
    index = _built(table)
    half = len(users) // 2
    probes = _chosen_probes(index, table, users[:half])
    recall = _recall(index, probes, table, users[half:], _exact(table, users[half:]))
    if recall < LEAST_RECALL:
        raise RecallError(
            f"the index finds {recall:.1%} of the best {AT} items, at least {LEAST_RECALL:.0%} "
            "are wanted; export without --index"
        )
    faiss.write_index(index, str(folder / ITEM_INDEX))
    return IndexFact(
        file=ITEM_INDEX,
        library=f"faiss {faiss.__version__}",
        lists=index.nlist,
        probes=probes,
        recall_100=round(recall, 4),
        users=len(users) - half,
    )


def _built(table: Floats) -> Any:
    n_lists = min(int(4 * len(table) ** 0.5), len(table) // 40)  # as faiss advises
    product = faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(table.shape[1], f"IVF{n_lists},SQ8", product)
    index.cp.seed = SEED
    n_sample = min(len(table), TRAINED_ON * n_lists)
    sample = np.random.default_rng(SEED).permutation(len(table))[:n_sample]
    index.train(np.ascontiguousarray(table[np.sort(sample)]))
    for start in range(0, len(table), 2**17):
        index.add(np.ascontiguousarray(table[start : start + 2**17]))
    return index


def _chosen_probes(index: Any, table: Floats, users: Floats) -> int:
    """The fewest lists, in steps of a quarter, that give the wanted recall; or all."""
    exact, probes = _exact(table, users), 1
    while probes < index.nlist and _recall(index, probes, table, users, exact) < WANTED_RECALL:
        probes = min(index.nlist, probes + max(1, probes // 4))
    return probes


def _recall(index: Any, probes: int, table: Floats, users: Floats, exact: NDArray[Any]) -> float:
    parameters = faiss.SearchParametersIVF(nprobe=probes)
    wanted = min(INDEX_SURPLUS * AT, len(table))
    _, found = index.search(np.ascontiguousarray(users), wanted, params=parameters)  # (U, wanted)
    shares = []
    for user, candidates, best in zip(users, found, exact, strict=True):
        rows = candidates[candidates >= 0]
        first = rows[np.argsort(-(table[rows] @ user), kind="stable")[: len(best)]]
        shares.append(len(np.intersect1d(first, best)) / len(best))
    return float(np.mean(shares))


def _exact(table: Floats, users: Floats) -> NDArray[Any]:
    """Rows of the best items, (U, 100)."""
    at = min(AT, len(table))
    parts = [np.argpartition(-(table @ user), at - 1)[:at] for user in users]
    return np.stack(parts)
