"""Writes the item table as a file that vector databases load."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from export.errors import ExportError
from persona.artifact.reading import Artifact


def write_items(artifact: Artifact, path: Path) -> None:
    """One row an item: `item_id` and `embedding`, a list of D float32 numbers of fixed size.

    Raises:
        ExportError: the file cannot be written.
    """
    table = artifact.item_embeddings()[:-1]  # (n_items, D)
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(table.reshape(-1)), table.shape[1])
    ids = artifact.item_ids
    item_ids = ids if len({type(one) for one in ids}) == 1 else list(map(str, ids))
    items = pa.table({"item_id": pa.array(item_ids), "embedding": embeddings})
    try:
        pq.write_table(items, path)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror or error}") from None
