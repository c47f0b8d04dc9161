"""A large body is parsed in parts, with the outcome of parsing it as a whole."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from service.protocols.native.errors import InvalidBody
from service.protocols.native.large_bodies import parse_large
from service.protocols.native.parsing import parse
from service.protocols.native.schema import ScoreRequest

ADAPTER = TypeAdapter(ScoreRequest)
FIELDS = {"candidates": ["a", 1]}
TEXTS = st.text(alphabet='a[]{},:" \\histories')
ITEMS = st.lists(TEXTS | st.integers(0, 99) | st.booleans(), max_size=4)
NAMED = st.fixed_dictionaries({"items": ITEMS}, optional={"id": TEXTS})


def outcome(parsed: Any) -> Any:
    try:
        return parsed().model_dump()
    except InvalidBody as error:
        return str(error), error.path


def same_in_parts(raw: bytes) -> bool:
    in_parts = outcome(lambda: asyncio.run(parse_large(ADAPTER, raw, part_bytes=1)))
    return bool(in_parts == outcome(lambda: parse(ADAPTER, raw)))


@given(st.lists(ITEMS, max_size=6) | st.lists(NAMED, max_size=6), TEXTS, st.booleans())
def test_any_histories_come_out_the_same(histories: Any, model: str, first: bool) -> None:
    model_field = {"model": model}
    fields = {"histories": histories} | FIELDS
    body = fields | model_field if first else model_field | fields
    assert same_in_parts(json.dumps(body).encode())
    assert same_in_parts(json.dumps(body, indent=1, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    "raw",
    [
        '{"histories": [["a"], ["b"]], "histories": [["c"]], "candidates": []}',
        '{"histories": [["a"], ["b"]], "\\u0068istories": [], "candidates": []}',
        '{"histories": [["a"], {"items": ["b"]}, ["c"]], "candidates": []}',
        '{"histories": [["a"], ["b"]], "candidates": [["c"], ["d"]]}',
        '{"histories": [["a"], ["b"]',
        '{"histories": [["a"], ["b"], 3], "candidates": []}',
        '{"candidates": [], "model": "\\"histories\\": [", "histories": [["a"]]}',
        '{"x": {"histories": [["a"], ["b"]]}, "candidates": []}',
        '[{"histories": [["a"], ["b"]]}]',
    ],
)
def test_a_body_that_looks_like_another_comes_out_the_same(raw: str) -> None:
    assert same_in_parts(raw.encode())


def test_the_event_loop_turns_between_the_parts() -> None:
    raw = json.dumps({"histories": [["a"], ["b"], ["c"]]} | FIELDS).encode()

    async def main() -> list[str]:
        events: list[str] = []
        parsing = asyncio.create_task(parse_large(ADAPTER, raw, part_bytes=1))
        parsing.add_done_callback(lambda _: events.append("parsed"))
        for _ in range(2):
            await asyncio.sleep(0)
            events.append("turn")
        await parsing
        await asyncio.sleep(0)
        return events

    assert asyncio.run(main()) == ["turn", "turn", "parsed"]
