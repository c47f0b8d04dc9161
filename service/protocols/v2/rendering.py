"""Renders results as output tensors, in JSON or little-endian behind it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson

from persona.contract import Floats, InvalidRequest, Result, Results
from persona.engine.model import Model
from service.protocols.exchange import Answer
from service.protocols.v2.parsing import EMBEDDING, Clicks, Inference

HEADER_LENGTH = b"inference-header-content-length"


def render(inference: Inference, results: Results, model: Model, max_values: int) -> Answer:
    """The answer to an infer request.

    Raises:
        InvalidRequest: its attention, padding included, has more than `max_values` numbers.
    """
    tensors, binaries = [], []
    for output in inference.outputs:
        values = _values(output.name, inference.clicks, results.histories, model, max_values)
        tensor: dict[str, Any] = {
            "name": output.name,
            "datatype": "FP32",
            "shape": list(values.shape),
        }
        everywhere = inference.body.parameters.get("binary_data_output", False)
        if output.parameters.get("binary_data", everywhere):
            binaries.append(values.astype("<f4", copy=False).tobytes())
            tensor["parameters"] = {"binary_data_size": len(binaries[-1])}
        else:
            tensor["data"] = values.ravel()
        tensors.append(tensor)
    head = {"model_name": results.model, "model_version": results.version, "outputs": tensors}
    if inference.body.id is not None:
        head["id"] = inference.body.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binaries:
        return Answer(text)
    headers = [(HEADER_LENGTH, b"%d" % len(text))]
    body = b"".join((text, *binaries))
    return Answer(body, headers=headers, content_type=b"application/octet-stream")


def _values(
    name: str, clicks: Clicks, histories: Sequence[Result], model: Model, max_values: int
) -> Floats:
    """One output: (B, D), (B, H, 1 + L) or (B, blocks, H, 1 + L, 1 + L)."""
    architecture = model.manifest.architecture
    n, size = len(histories), 1 + clicks.length
    if name == EMBEDDING:
        embeddings = np.empty((n, architecture.width), np.float32)
        for number, result in enumerate(histories):
            embeddings[number] = result.embedding
        return embeddings
    axes: tuple[int, ...] = (architecture.heads, size)
    if name == "attention_full":
        axes = (architecture.blocks, *axes, size)
    n_values = n * int(np.prod(axes, dtype=object))
    if n_values > max_values:
        raise InvalidRequest(f"output '{name}' has {n_values:,} values, limit {max_values:,}")
    weights = np.zeros((n, *axes), np.float32)
    for number, result in enumerate(histories):
        used = np.append(0, 1 + clicks.positions(number)[result.truncated :])  # 0: start token
        if name == "attention_full":
            weights[number][:, :, used[:, None], used] = result.full_attention
        else:
            weights[number][:, used] = result.pooled_attention
    return weights
