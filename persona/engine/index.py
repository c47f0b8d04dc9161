"""The index of a large item table: most of the best items, without looking at all of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from persona.artifact import Artifact, ArtifactError
from persona.artifact.format import INDEX_SURPLUS, IndexFact
from persona.engine.search import VALUES_A_TOKEN, Scan, directions

# Inverted lists of 8 bits a number take about five times as long as a product of the same size.
COST = 5
MANY_EXCLUDED = 1000  # for more of them the whole table is searched


class Index:
    """A mapped faiss index; computes the step that searches it."""

    def __init__(self, artifact: Artifact, fact: IndexFact) -> None:
        """Maps the file.

        Raises:
            ArtifactError: faiss is not installed, or cannot read the file.
        """
        path = artifact.folder / fact.file
        try:
            import faiss  # noqa: PLC0415  # few artifacts have an index
        except ModuleNotFoundError:
            raise ArtifactError(
                f"{path}: an index needs faiss: pip install 'persona-encoder[index]'"
            ) from None
        try:
            flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
            self._index: Any = faiss.read_index(str(path), flags)
        except RuntimeError as error:
            raise ArtifactError(f"{path}: {error}") from None
        # Threads that read lists ahead, for every search: the lists are in memory.
        faiss.downcast_InvertedLists(self._index.invlists).prefetch_nthread = 0
        self._parameters: Any = faiss.SearchParametersIVF(nprobe=fact.probes)
        self.recall = fact.recall_100
        width, n_items = artifact.manifest.architecture.width, artifact.manifest.n_items
        looked_at = fact.lists + fact.probes * n_items // fact.lists
        self.tokens = 1 + COST * looked_at * width // VALUES_A_TOKEN  # of a scan

    def compute(self, scans: Sequence[Scan]) -> list[None]:
        """Adds to each scan what the index finds."""
        most = max(scan.k + len(scan.excluded) for scan in scans)
        wanted = min(INDEX_SURPLUS * most, scans[0].table.n_items)
        found: Any = self._index.search(directions(scans), wanted, params=self._parameters)[1]
        for scan, rows in zip(scans, found, strict=True):
            scan.add(rows[(rows >= 0) & ~np.isin(rows, scan.excluded)])
        return [None] * len(scans)


def can_use(scans: Sequence[Scan]) -> bool:
    """Whether the index answers for these scans as well as it was measured."""
    return all(len(scan.excluded) <= MANY_EXCLUDED for scan in scans)
