"""What is in memory while a table is read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from persona.tables import open_table

GROUPS, GROUP_BYTES = 20, 2**21


def test_row_groups_that_are_read_do_not_stay_in_memory(tmp_path: Path) -> None:
    rng, source = np.random.default_rng(0), tmp_path / "users.parquet"
    items = pa.array(rng.integers(0, 2**62, GROUP_BYTES // 8))  # which cannot be packed
    histories = pa.ListArray.from_arrays(np.arange(0, len(items) + 1, 64, dtype=np.int32), items)
    group = pa.table({"history": histories})
    with pq.ParquetWriter(source, group.schema, use_dictionary=False) as writer:
        for _ in range(GROUPS):
            writer.write_table(group)
    del items, histories, group
    before, most = pa.total_allocated_bytes(), 0
    with open_table(source) as table:
        for _ in table:
            most = max(most, pa.total_allocated_bytes() - before)
    assert most < GROUPS * GROUP_BYTES / 2
