"""Columns of clicks in the encoder: what they change, and what they must not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from export.graphs import export_graphs
from export.parity import TOLERANCE, compare
from model.clicks.columns import column_inputs, column_values, declared
from model.clicks.histories import Histories, encoder_inputs, leave_one_out
from model.clicks.time_split import by_time
from model.errors import DataError, RecipeError
from model.evaluation.scorer import EncoderScorer, user_embeddings
from model.network.attention import PaddingSide
from model.network.columns import LARGEST
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.training.columns import with_columns
from model.training.objective import objective
from model.training.recipe import DataRecipe, Recipe
from model.training.windows import Windows
from persona.columns import MAX_CATEGORIES, ClickColumn
from tests.conftest import random_encoder
from tests.small import of

N_ITEMS = 9
EVENTS = ClickColumn("category", ("view", "cart", "sale"))
PRICES = ClickColumn("number", mean=10.0, deviation=4.0)
COLUMNS = {"event": EVENTS, "price": PRICES}
KINDS: dict[str, Any] = {"event": "category", "price": "number"}
Row = tuple[list[int], list[str | None], list[float]]  # items, events and prices of a history
NAN = float("nan")


def encoder_of(**changes: object) -> UserEncoder:
    fields = {"width": 16, "heads": 2, "max_length": 12, "columns": COLUMNS}
    return random_encoder(EncoderConfig(**(fields | changes)), N_ITEMS)  # type: ignore[arg-type]  # by name


def clicks(*rows: Row) -> Histories:
    plain = of(*(items for items, _, _ in rows), n_items=N_ITEMS)
    texts = ["view", "cart", "sale", "never seen"]
    events = [
        -1 if event is None else texts.index(event) for _, events, _ in rows for event in events
    ]
    prices = np.array([price for _, _, prices in rows for price in prices])
    columns = {"event": np.array(events, np.int32), "price": prices}
    return replace(plain, columns=columns, texts={"event": texts})


def embeddings(encoder: UserEncoder, histories: Histories) -> Tensor:
    with torch.no_grad():
        return user_embeddings(encoder, histories)


ONE: Row = ([1, 2, 3, 4], ["view", None, "sale", "never seen"], [3.0, NAN, 500.0, 12.5])
OTHERS: list[Row] = [
    ([5] * 12, ["cart"] * 12, list(map(float, range(12)))),
    ([], [], []),
    ([7], ["view"], [NAN]),
]


@pytest.mark.parametrize("pooling", ["newest", "mean"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_mates_change_nothing(pooling: str, side: PaddingSide) -> None:
    encoder = encoder_of(pooling=pooling, embedding_scale=4.0)
    alone = embeddings(encoder, clicks(ONE))
    batch = embeddings(encoder, clicks(ONE, *OTHERS))
    torch.testing.assert_close(batch[:1], alone, atol=1e-5, rtol=0)
    inputs = map(torch.from_numpy, encoder_inputs(clicks(ONE), 12, timed=False))
    events, prices = map(torch.from_numpy, column_inputs(clicks(ONE), COLUMNS, 12))
    wide = (3, 0) if side == "left" else (0, 3)
    pad = torch.nn.functional.pad
    item_ids, key_mask = (pad(one, wide) for one in inputs)
    for event, price in ((-5, NAN), (99, float("inf"))):
        columns = (pad(events, wide, value=event), pad(prices, wide, value=price))
        with torch.no_grad():
            padded = encoder.encode(item_ids, key_mask, columns=columns)[0]
        torch.testing.assert_close(padded, alone, atol=1e-5, rtol=0)


def test_every_value_matters_that_the_encoder_reads() -> None:
    encoder = encoder_of()
    items, events, prices = ONE
    plain = embeddings(encoder, clicks(ONE))
    others: list[Row] = [
        (items, ["cart", *events[1:]], prices),
        (items, ["never seen", *events[1:]], prices),
        (items, events, [4.0, *prices[1:]]),
        (items, events, [NAN, *prices[1:]]),
    ]
    for other in others:
        assert not torch.allclose(embeddings(encoder, clicks(other)), plain, atol=1e-4)


def test_a_missing_category_is_read_as_an_unknown_one() -> None:
    encoder = encoder_of()
    items, events, prices = ONE
    unknown = ["never seen" if event is None else event for event in events]
    torch.testing.assert_close(
        embeddings(encoder, clicks((items, list(unknown), prices))),
        embeddings(encoder, clicks(ONE)),
    )


def test_a_missing_number_adds_nothing_and_a_far_one_no_more_than_the_largest() -> None:
    encoder = encoder_of(columns={"price": PRICES})
    assert encoder.columns is not None
    largest = PRICES.mean + LARGEST * PRICES.deviation
    numbers = torch.tensor([[NAN, largest, 1e30, float("inf")]])
    with torch.no_grad():
        added = encoder.columns((numbers,), torch.ones(1, 4, dtype=torch.bool))[0]
    assert not added[0].any()
    torch.testing.assert_close(added[2:], added[1].expand(2, -1))


def test_every_position_is_trained_as_the_newest_one_serves() -> None:
    encoder = encoder_of(dropout=0)
    history = clicks(ONE)
    batch = Windows(history, 12, columns=COLUMNS)[np.array([0])]
    with torch.no_grad():
        states, _ = encoder.states(batch.item_ids, batch.key_mask, columns=batch.columns)
    for n in range(4):
        cut = history.oldest(np.array([n]))
        torch.testing.assert_close(states[:, n], embeddings(encoder, cut), atol=1e-5, rtol=0)


def test_columns_are_trained() -> None:
    encoder = encoder_of(dropout=0).train()
    windows = Windows(clicks(ONE, OTHERS[0]), 12, columns=COLUMNS)
    loss = objective(encoder, windows[np.arange(2)], 4)
    assert encoder.columns is not None
    tables = list(encoder.columns.parameters())
    assert [tuple(table.shape) for table in tables] == [(4, 16), (2, 16)]
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(loss, tables))


def test_a_new_encoder_begins_as_one_without_columns() -> None:
    torch.manual_seed(0)
    plain = UserEncoder(EncoderConfig(width=16, max_length=12), N_ITEMS).eval()
    torch.manual_seed(0)
    with_them = UserEncoder(EncoderConfig(width=16, max_length=12, columns=COLUMNS), N_ITEMS).eval()
    torch.testing.assert_close(
        embeddings(with_them, clicks(ONE)), embeddings(plain, clicks(ONE)), atol=0, rtol=0
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"similarity": "additive", "pooling": "mean"},
        {"attention": "source_target", "embedding_scale": 4.0},
        {"time": "gaps", "positions": "rotary"},
    ],
    ids=["rearranged", "as it is", "with candidates", "with time"],
)
def test_every_graph_equals_pytorch(changes: dict[str, object], tmp_path: Path) -> None:
    encoder = encoder_of(**changes)
    facts = export_graphs(encoder, tmp_path)
    cases = compare(encoder, tmp_path, facts)
    assert {case.graph for case in cases} == facts.keys()
    assert max(case.worst_absolute_difference / max(1, case.largest_output) for case in cases) <= (
        TOLERANCE
    )
    carried = [one.carries for one in facts["embedding"].inputs]
    assert carried[-2:] == ["clicks.event", "clicks.price"]


def test_training_declares_the_categories_and_numbers_of_its_clicks() -> None:
    found = declared(clicks(ONE, *OTHERS), KINDS)
    assert found["event"].values == ("cart", "view", "never seen", "sale")  # frequent ones first
    known = [3.0, 500.0, 12.5, *range(12)]
    price = found["price"]
    assert (price.mean, price.deviation) == pytest.approx((np.mean(known), np.std(known)))
    assert declared(clicks(([1], ["view"], [7.0])), KINDS)["price"].deviation == 1
    assert declared(clicks(([1], ["view"], [NAN])), KINDS)["price"].mean == 0


def test_only_so_many_categories_are_told_apart() -> None:
    n = MAX_CATEGORIES + 5
    histories = replace(
        of([0] * n),
        columns={"event": np.arange(n, dtype=np.int32)},
        texts={"event": [f"{place:05}" for place in range(n)]},
    )
    found = declared(histories, {"event": "category"})
    assert len(found["event"].values) == MAX_CATEGORIES
    (rows,) = column_values(histories, found)
    assert rows[-1] == rows[-5] == MAX_CATEGORIES


def test_splits_and_cuts_keep_columns_beside_their_clicks() -> None:
    rows: list[Row] = [([1, 2, 3], ["view", "cart", "sale"], [1.0, 2.0, 3.0])] * 4
    histories = clicks(*rows)
    timed = replace(histories, columns={**histories.columns, "time": np.arange(12)})
    for split in (leave_one_out(histories), by_time(timed, 0.25)):
        for part in (split.train, split.validation.histories, split.test.histories):
            (events, prices) = column_values(part, COLUMNS)
            assert events.tolist() == (part.items - 1).tolist()
            assert prices.tolist() == part.items.tolist()
    chosen = histories.select(np.array([2, 0]))
    assert column_inputs(chosen, COLUMNS, 2)[0].tolist() == [[1, 2], [1, 2]]


def test_clicks_without_a_column_are_refused_where_it_is_read() -> None:
    message = "reads the category 'event' of each click, and these clicks have none"
    with pytest.raises(DataError, match=message):
        Windows(of([1, 2]), 4, columns=COLUMNS)
    with pytest.raises(DataError, match=message):
        EncoderScorer(encoder_of()).scores(of([1, 2], n_items=N_ITEMS))
    with pytest.raises(ValueError, match="reads 2 columns of clicks, and was given 0"):
        encoder_of().encode(torch.zeros(1, 2).long(), torch.ones(1, 2) > 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({f"c{n}": "number" for n in range(9)}, "9 columns of a click, at most 8 are allowed"),
        ({"a b": "number"}, "no column of a click can be called 'a b': up to 63 letters"),
        ({"time": "number"}, "the column 'time' is read anyway"),
        ({"event": "text"}, "Input should be 'category' or 'number'"),
    ],
)
def test_a_recipe_cannot_name_such_columns(columns: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataRecipe.model_validate({"columns": columns})


def test_a_recipe_takes_its_columns_from_the_training_clicks() -> None:
    train = clicks(ONE)
    recipe = Recipe(name="small", data=DataRecipe(columns=KINDS))
    found = with_columns(recipe, train)
    assert found.encoder.columns == declared(train, KINDS)
    assert Recipe.model_validate_json(found.model_dump_json()) == found
    assert with_columns(found, clicks(*OTHERS)) == found  # the recipe's own stay
    other = found.model_copy(update={"data": DataRecipe()})
    with pytest.raises(
        RecipeError, match=r"reads the columns event, price of clicks, and data\.columns has none"
    ):
        with_columns(other, train)
