"""Requests of Triton's own client."""

from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np
import tritonclient.http as triton
from numpy.typing import NDArray


def infer(
    client: httpx.Client,
    model: str,
    tensors: Mapping[str, tuple[NDArray[Any], str]],
    *,
    binary: bool,
) -> tuple[NDArray[np.float32], list[str]]:
    """The user embeddings, and the inputs that the model declares; a tensor has its datatype."""
    inputs = []
    for name, (values, datatype) in tensors.items():
        inputs.append(triton.InferInput(name, list(values.shape), datatype))
        inputs[-1].set_data_from_numpy(values, binary_data=binary)
    address = f"{client.base_url.host}:{client.base_url.port}"
    with triton.InferenceServerClient(address) as own:
        found = own.infer(model, inputs).as_numpy("user_embedding")
        declared = [one["name"] for one in own.get_model_metadata(model)["inputs"]]
    return found, declared
