"""The weights that an artifact's graphs share, in one file beside them."""

import hashlib
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import onnx

from persona.artifact.format import ITEM_EMBEDDINGS, WEIGHTS

INLINE_BYTES = 256  # smaller constants, such as shapes, stay in the graph
ALIGNMENT = 64  # of tensors in the weights file: a cache line


@dataclass
class ExternalWeights:
    """Moves initializers out of graphs into one file, equal ones once.

    The item table goes to the `.npy` file that already holds it.
    """

    file: BinaryIO
    item_table: np.ndarray
    item_file_bytes: int
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def move_out(self, model: onnx.ModelProto) -> None:
        """Replaces large initializers by references.

        Raises:
            ValueError: the graph does not hold the item table as it is.
        """
        tables = 0
        for tensor in model.graph.initializer:
            data = onnx.numpy_helper.to_array(tensor)
            if data.shape == self.item_table.shape and np.array_equal(data, self.item_table):
                tables += 1
                offset = self.item_file_bytes - data.nbytes
                _refer(tensor, ITEM_EMBEDDINGS, offset, data.nbytes)
            elif data.nbytes >= INLINE_BYTES:
                _refer(tensor, WEIGHTS, *self._place(data))
        if not tables:
            raise ValueError("the exporter has folded the item table into another constant")

    def _place(self, data: np.ndarray) -> tuple[int, int]:
        content = data.tobytes()
        key = f"{data.dtype}{data.shape}{hashlib.sha256(content).hexdigest()}"
        if key not in self._places:
            self.file.write(b"\0" * (-self.file.tell() % ALIGNMENT))
            self._places[key] = (self.file.tell(), len(content))
            self.file.write(content)
        return self._places[key]


def _refer(tensor: onnx.TensorProto, file: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
