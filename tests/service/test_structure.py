"""Counting in bytes agrees with counting what a parser builds."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.contract import InvalidRequest
from service.protocols import structure
from service.protocols.structure import Structure

TEXT = st.text('ab,:[]{}"\\\n é', max_size=8)
DOCUMENTS = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
PADDING = b" " * structure.SMALL_BYTES


def counted(value: Any) -> tuple[int, int, int]:
    """Commas, colons, and opening brackets and braces, outside of strings."""
    if not isinstance(value, list | dict):
        return 0, 0, 0
    inner = [counted(one) for one in (value.values() if isinstance(value, dict) else value)]
    own = (max(0, len(value) - 1), len(value) if isinstance(value, dict) else 0, 1)
    return tuple(map(sum, zip(own, *inner, strict=True)))  # type: ignore[return-value]  # three


@given(DOCUMENTS, st.booleans(), st.sampled_from([1, 7, 100_000]))
def test_what_is_in_strings_does_not_count(document: Any, ascii_only: bool, size: int) -> None:
    found = counted(document)
    body = json.dumps(document, ensure_ascii=ascii_only).encode() + PADDING
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "SLICE_BYTES", max(size, len(body) // 100))
        Structure(*found).check(body)
        for place, what in enumerate(("values", "fields", "containers")):
            less = [number - (at == place) for at, number in enumerate(found)]
            with pytest.raises(InvalidRequest, match=f"more than {less[place]:,} {what}"):
                Structure(*less).check(body)


def test_a_small_body_is_left_to_the_parser() -> None:
    Structure(0, 0, 0).check(b"[{}, {}]")
