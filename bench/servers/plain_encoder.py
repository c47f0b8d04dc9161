"""The plain encoder as every server but Persona runs it: pad to the longest, run, no validation.

One thread a process, as there is a process a core; with `BENCH_THREADS=0` as many as ONNX Runtime
likes best, which is what it does when nobody says anything. With `BENCH_SUBNORMALS=0` numbers too
small to be normal are taken for zero, as Persona does: ONNX Runtime has a setting for it, which is
off unless asked for and counts in the thread that opens the session.
"""

import os
from collections.abc import Sequence

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import below

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class PlainEncoder:
    """`plain.onnx`."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("BENCH_THREADS", "1"))
        if os.environ.get("BENCH_SUBNORMALS") == "0":
            options.add_session_config_entry("session.set_denormal_as_zero", "1")
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(os.environ["BENCH_ONNX"], options, providers)

    def encode(self, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Embeddings (B, D) of histories given as rows of the item table."""
        longest = max(1, *map(len, histories))
        item_ids = np.zeros((len(histories), longest), np.int64)
        key_mask = np.zeros((len(histories), longest), np.bool_)
        for row, history in enumerate(histories):
            item_ids[row, : len(history)] = history
            key_mask[row, : len(history)] = True
        feeds = {"item_ids": item_ids, "key_mask": key_mask}
        embeddings: NDArray[np.float32] = self._session.run(None, feeds)[0]
        return embeddings
