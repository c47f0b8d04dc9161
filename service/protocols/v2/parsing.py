"""Turns the body of an infer request into a query, and into what its answer must look like."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from persona.artifact.catalogue import ItemsByRow
from persona.contract import (
    ITEM_ID,
    TIME,
    AttentionDetail,
    Embeddings,
    InvalidRequest,
    ItemId,
    Query,
    UnknownItems,
)
from persona.engine.model import Model
from service.protocols.structure import SMALL_BYTES, Structure
from service.protocols.v2.columns import check_column, column_values
from service.protocols.v2.schema import MAX_TENSORS, InferRequest, RequestedOutput
from service.protocols.v2.tensors import Values, read_tensors
from service.protocols.validation import shown, validate
from service.settings import Settings

ITEM_IDS, KEY_MASK, LENGTHS = "item_ids", "key_mask", "lengths"
TIMES, ASKED = "times", "asked"  # of models that read time
INPUTS = (ITEM_IDS, KEY_MASK, LENGTHS, TIMES, ASKED)
COLUMN = "column_"  # and the name of a column of clicks, of models that read it
EMBEDDING = "user_embedding"
ATTENTION: Mapping[str, AttentionDetail] = {
    "attention_pooled": "pooled",
    "attention_full": "full",
}

_BODY = TypeAdapter(InferRequest)
_DEFAULT_OUTPUTS = (RequestedOutput(name=EMBEDDING),)


@dataclass(frozen=True, slots=True)
class Clicks:
    """The clicks of B histories, one history behind the other."""

    values: Values  # (N,) rows, integer ids, or texts
    counts: list[int]  # B, they sum to N
    length: int  # of the axis L, which the clicks lie on
    mask: NDArray[np.bool_] | None = None  # (B, L) where on it; None: from its beginning

    def positions(self, history: int) -> NDArray[np.intp]:
        """Where on the axis L the clicks of a history lie."""
        if self.mask is None:
            return np.arange(self.counts[history])
        return np.flatnonzero(self.mask[history])


@dataclass(frozen=True, slots=True)
class Inference:
    """One infer request."""

    body: InferRequest
    clicks: Clicks
    outputs: Sequence[RequestedOutput]
    query: Query


def structure_of(settings: Settings) -> Structure:
    """What the JSON of a body may consist of: ids, their mask and times, a list a history."""
    histories, fields = settings.max_histories, 16 * (MAX_TENSORS + 1)
    values = 3 * (settings.max_items + histories) + fields
    return Structure(values, fields, 3 * histories + fields)


def parse(raw: bytes, json_bytes: int | None, model: Model, settings: Settings) -> Inference:
    """Reads a body whose first `json_bytes` are JSON; None: all of it is.

    Raises:
        InvalidRequest: the message names the input, and what is wrong with it.
    """
    if json_bytes is not None and not 0 <= json_bytes <= len(raw):
        raise InvalidRequest(f"the header says {json_bytes} bytes of JSON, the body has {len(raw)}")
    text = raw[:json_bytes]
    if len(text) > SMALL_BYTES:
        structure_of(settings).check(text)
    body = validate(_BODY, text)
    inputs = read_tensors(body.inputs, b"" if json_bytes is None else raw[json_bytes:])
    columns_read = model.manifest.columns
    clicks = _clicks(inputs, settings.max_histories, list(columns_read))
    if (n := len(clicks.values)) > settings.max_items:
        raise InvalidRequest(f"the request has {n:,} clicks, limit {settings.max_items:,}")
    items = _item_ids(clicks.values, body, model)
    ends = np.cumsum(clicks.counts, dtype=np.int64).tolist()
    spans = list(pairwise([0, *ends]))
    columns: dict[str, list[Sequence[Any]]] = {ITEM_ID: [items[start:end] for start, end in spans]}
    if (times := _times(inputs, clicks)) is not None:
        columns[TIME] = [times[start:end] for start, end in spans]
    for name, column in columns_read.items():
        if (tensor := inputs.get(f"{COLUMN}{name}")) is not None:
            check_column(f"{COLUMN}{name}", tensor, column, inputs[ITEM_IDS].shape)
            values = column_values(f"{COLUMN}{name}", _flattened(tensor, clicks), column)
            columns[name] = [values[start:end] for start, end in spans]
    outputs = body.outputs or _DEFAULT_OUTPUTS
    unknown_items = _unknown_items(body)
    attention = _attention(outputs)
    if attention != "none" and unknown_items == "drop":
        raise InvalidRequest("attention weights of dropped clicks: ask for unknown_items 'token'")
    manifest = model.manifest
    query = Query(
        columns,
        Embeddings(attention),
        manifest.name,
        manifest.version,
        unknown_items,
        now=_asked(inputs, len(spans)),
    )
    return Inference(body, clicks, outputs, query)


def _clicks(inputs: Mapping[str, Values], max_histories: int, columns: Sequence[str]) -> Clicks:
    known = (*INPUTS, *(f"{COLUMN}{name}" for name in columns))
    if unknown := inputs.keys() - set(known):
        names = ", ".join(sorted(name[:60] for name in unknown))
        raise InvalidRequest(f"unknown inputs: {names}; known: {', '.join(known)}")
    if (values := inputs.get(ITEM_IDS)) is None:
        raise InvalidRequest(f"input '{ITEM_IDS}' is missing")
    if values.dtype == np.bool_:
        raise InvalidRequest(f"input '{ITEM_IDS}' has datatype BOOL, not INT64, INT32 or BYTES")
    if values.dtype.kind == "f":
        raise InvalidRequest(f"input '{ITEM_IDS}' has datatype FP32, not INT64, INT32 or BYTES")
    lengths = inputs.get(LENGTHS)
    counted = values if lengths is None else lengths
    if len(counted) > max_histories:
        raise InvalidRequest(f"the request has {len(counted):,} histories, limit {max_histories:,}")
    if lengths is not None:
        return _flat(values, lengths, inputs)
    if values.ndim != 2:
        raise InvalidRequest(
            f"input '{ITEM_IDS}' has shape {list(values.shape)}: two axes, histories and clicks, "
            f"or one axis and the input '{LENGTHS}'"
        )
    return _padded(values, inputs.get(KEY_MASK))


def _times(inputs: Mapping[str, Values], clicks: Clicks) -> list[int] | None:
    """Seconds of the clicks, one history behind the other."""
    if (times := inputs.get(TIMES)) is None:
        return None
    shape = inputs[ITEM_IDS].shape
    if times.dtype.kind != "i" or times.shape != shape:
        raise InvalidRequest(
            f"input '{TIMES}' must be INT64 of shape {list(shape)}, as '{ITEM_IDS}'"
        )
    of_clicks: list[int] = _flattened(times, clicks).tolist()
    return of_clicks


def _flattened(values: Values, clicks: Clicks) -> Values:
    """The values of the clicks, one history behind the other."""
    return values.ravel() if clicks.mask is None else values[clicks.mask]


def _asked(inputs: Mapping[str, Values], n_histories: int) -> list[int]:
    """When each history is asked about; nothing where the request does not say."""
    asked = inputs.get(ASKED)
    if asked is None:
        return []
    if asked.dtype.kind != "i" or asked.shape != (n_histories,):
        raise InvalidRequest(f"input '{ASKED}' must be INT64 of shape [{n_histories}]")
    seconds: list[int] = asked.tolist()
    return seconds


def _flat(values: Values, lengths: Values, inputs: Mapping[str, Values]) -> Clicks:
    if KEY_MASK in inputs:
        raise InvalidRequest(f"inputs '{KEY_MASK}' and '{LENGTHS}': one or the other")
    if values.ndim != 1 or lengths.ndim != 1 or lengths.dtype.kind != "i":
        raise InvalidRequest(f"with '{LENGTHS}', an integer a history, '{ITEM_IDS}' has one axis")
    counts: list[int] = lengths.tolist()
    if min(counts, default=0) < 0 or sum(counts) != len(values):
        raise InvalidRequest(
            f"input '{LENGTHS}' must be 0 or more and sum to the {len(values):,} values of "
            f"'{ITEM_IDS}'"
        )
    return Clicks(values, counts, max(counts, default=0))


def _padded(values: Values, mask: Values | None) -> Clicks:
    n_histories, length = values.shape
    if mask is None:
        return Clicks(values.ravel(), [length] * n_histories, length)
    if mask.dtype != np.bool_ or mask.shape != values.shape:
        raise InvalidRequest(
            f"input '{KEY_MASK}' must be BOOL of shape {list(values.shape)}, as '{ITEM_IDS}'"
        )
    return Clicks(values[mask], mask.sum(axis=1).tolist(), length, mask)


def _item_ids(values: Values, body: InferRequest, model: Model) -> Sequence[ItemId]:
    """The items of the clicks; integers are rows of the item table, unless the request says ids."""
    kind = body.parameters.get(ITEM_IDS, "rows")
    if kind not in {"rows", "ids"}:
        raise InvalidRequest(f"parameter '{ITEM_IDS}' is {shown(kind)}, not 'rows' or 'ids'")
    if kind == "ids" or values.dtype == np.object_:
        ids: list[ItemId] = values.tolist()
        return ids
    unknown = model.catalogue.n_items
    lowest, highest = (values.min(), values.max()) if len(values) else (0, 0)
    if lowest < 0 or highest > unknown:
        wrong = int(lowest if lowest < 0 else highest)
        raise InvalidRequest(
            f"input '{ITEM_IDS}' has row {wrong}; rows go from 0 to {unknown - 1}, and {unknown} "
            f"is an unknown item; for integer ids set the parameter '{ITEM_IDS}' to 'ids'"
        )
    return ItemsByRow(model.catalogue, array("q", values.astype(np.int64, copy=False).tobytes()))


def _attention(outputs: Sequence[RequestedOutput]) -> AttentionDetail:
    names = [output.name for output in outputs]
    if len(set(names)) < len(names):
        raise InvalidRequest("outputs: one of them is named twice")
    for name in names:
        if name != EMBEDDING and name not in ATTENTION:
            known = ", ".join((EMBEDDING, *ATTENTION))
            raise InvalidRequest(f"no output '{name:.60}'; known: {known}")
    wanted = [ATTENTION[name] for name in names if name in ATTENTION]
    if len(wanted) > 1:
        raise InvalidRequest(f"outputs: {' and '.join(ATTENTION)} only in requests of their own")
    return wanted[0] if wanted else "none"


def _unknown_items(body: InferRequest) -> UnknownItems:
    match body.parameters.get("unknown_items", "token"):
        case "token" | "drop" | "error" as known:
            return known
        case other:
            choices = ", ".join(get_args(UnknownItems))
            raise InvalidRequest(f"parameter 'unknown_items' is {shown(other)}, not of {choices}")
