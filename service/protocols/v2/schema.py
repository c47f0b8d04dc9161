"""Requests and responses as pydantic models; as in Triton, unknown fields are ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TENSORS = 16  # of a request, in and out

Parameters = Annotated[
    dict[str, bool | int | float | str | None],
    Field(description="those that a server does not know are ignored"),
]
Size = Annotated[int, Field(ge=0, lt=2**31)]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=2)]


class _Strict(BaseModel):
    # protected_namespaces: the protocol's own names begin with model_.
    model_config = ConfigDict(strict=True, cache_strings="keys", protected_namespaces=())


class InputTensor(_Strict):
    """A tensor, with its values in JSON or behind the JSON."""

    name: str
    shape: Sizes
    datatype: str
    parameters: Annotated[
        Parameters, Field(description="binary_data_size: bytes behind the JSON, instead of data")
    ] = {}
    data: Annotated[
        list[Any] | None, Field(description="row-major, flat or nested as the shape")
    ] = None


class RequestedOutput(_Strict):
    """An output that is wanted."""

    name: str
    parameters: Annotated[
        Parameters, Field(description="binary_data: its values behind the JSON")
    ] = {}


class InferRequest(_Strict):
    """Histories as tensors: item_ids with key_mask, (B, L), or flat item_ids with lengths, (B,)."""

    id: Annotated[str | None, Field(description="comes back")] = None
    parameters: Annotated[
        Parameters,
        Field(
            description="binary_data_output: all outputs behind the JSON; item_ids: what integers "
            "are, 'rows' of the item table or 'ids'; unknown_items: 'token', 'drop' or 'error'"
        ),
    ] = {}
    inputs: Annotated[list[InputTensor], Field(max_length=MAX_TENSORS, fail_fast=True)]
    outputs: Annotated[
        list[RequestedOutput] | None,
        Field(max_length=MAX_TENSORS, description="default: user_embedding"),
    ] = None


class OutputTensor(_Strict):
    """A tensor, with its values in JSON or behind the JSON."""

    name: str
    shape: list[int]
    datatype: Literal["FP32"]
    parameters: dict[str, int] = {}
    data: list[float] | None = None


class InferResponse(_Strict):
    """The outputs, for each history in the request's order."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class ServerMetadata(_Strict):
    """What answers here."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(_Strict):
    """An input or an output; -1 is a dynamic axis."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Strict):
    """A model's versions and its tensors."""

    name: str
    versions: list[str]
    platform: Literal["onnx_onnxv1"]
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Live(_Strict):
    """While the worker's event loop turns."""

    live: Literal[True] = True


class Ready(_Strict):
    """Queries are answered."""

    ready: Literal[True] = True


class RepositoryModel(_Strict):
    """One version of a model."""

    name: str
    version: str
    state: Literal["READY"]
    reason: str


class Done(_Strict):
    """Nothing to say."""


class Duration(_Strict):
    """How often, and how long in all."""

    count: int
    ns: Annotated[int, Field(description="nanoseconds")]


class InferenceStatistics(_Strict):
    """How long infer requests took; other protocols do not count here."""

    success: Annotated[Duration, Field(description="from the body's last byte to the answer")]
    fail: Annotated[Duration, Field(description="from the body's last byte to the error")]
    queue: Annotated[Duration, Field(description="waiting for a run")]
    compute_input: Annotated[Duration, Field(description="reading the tensors")]
    compute_infer: Annotated[Duration, Field(description="the runs that a request was in")]
    compute_output: Annotated[Duration, Field(description="writing the tensors")]


class ModelStatistics(_Strict):
    """What a model has answered, summed over the workers."""

    name: str
    version: str
    last_inference: Annotated[int, Field(description="unix milliseconds; 0: none")]
    inference_count: Annotated[int, Field(description="histories, of all protocols")]
    execution_count: Annotated[int, Field(description="runs of a graph, of all protocols")]
    inference_stats: InferenceStatistics


class Statistics(_Strict):
    """What models have answered since the service started."""

    model_stats: list[ModelStatistics]


class InferenceErrorResponse(BaseModel):
    """The shape of every error of these routes."""

    error: str
