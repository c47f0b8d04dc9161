"""Features of items: what columns a file has, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.clicks.item_features import read_item_features
from model.errors import DataError
from persona.features import FeatureColumn

SHOES = [
    {"item_id": n, "brand": "a" if n < 4 else "b", "price": 10.0**n, "name": f"shoe {n}"}
    for n in range(8)
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def columns(path: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, FeatureColumn]:
    """The columns of a file whose items are all in the catalogue, by name."""
    ids = [row["item_id"] for row in rows]
    found = read_item_features(write(path / "items.parquet", rows), ids, **options)
    return {column.name: column for column in found.columns}


def test_a_column_of_texts_is_a_category_and_names_are_for_people(tmp_path: Path) -> None:
    found = columns(tmp_path, SHOES)
    assert found["brand"] == FeatureColumn("brand", "category", ("a", "b"))
    assert list(found) == ["brand", "price"]


def test_a_column_of_lists_of_texts_is_a_category(tmp_path: Path) -> None:
    rows = [{"item_id": n, "genres": ["Drama", "War"] if n % 2 else ["Drama"]} for n in range(6)]
    assert columns(tmp_path, rows)["genres"].values == ("Drama", "War")


def test_a_category_of_two_items_shares_the_place_of_new_categories(tmp_path: Path) -> None:
    rows = [{"item_id": n, "brand": "rare" if n < 2 else "often"} for n in range(6)]
    assert columns(tmp_path, rows)["brand"].values == ("often",)


def test_a_skewed_number_is_scaled_by_its_logarithm(tmp_path: Path) -> None:
    price = columns(tmp_path, SHOES)["price"]
    logarithms = np.log1p([row["price"] for row in SHOES])
    assert price.log
    assert price.mean == pytest.approx(logarithms.mean())
    assert price.deviation == pytest.approx(logarithms.std())


def test_an_even_number_is_scaled_as_it_is(tmp_path: Path) -> None:
    rows = [{"item_id": n, "year": 1990 + n} for n in range(9)]
    assert columns(tmp_path, rows)["year"] == FeatureColumn(
        "year", "number", mean=1994.0, deviation=float(np.std(range(9)))
    )


def test_numbers_that_the_recipe_calls_names_are_a_category(tmp_path: Path) -> None:
    rows = [{"item_id": n, "brand": 7 if n < 3 else 11} for n in range(6)]
    assert columns(tmp_path, rows, categories=["brand"])["brand"].values == ("11", "7")


def test_lists_of_numbers_are_vectors(tmp_path: Path) -> None:
    rows = [{"item_id": n, "text": [0.5, n, 1.0]} for n in range(4)]
    assert columns(tmp_path, rows)["text"] == FeatureColumn("text", "vector", length=3)


def test_rows_of_the_matrix_are_those_of_the_catalogue(tmp_path: Path) -> None:
    file = write(tmp_path / "items.parquet", SHOES)
    found = read_item_features(file, ["5", "elsewhere", "0"]).matrix
    np.testing.assert_array_equal(found[1], [0] * (found.shape[1] - 1) + [1])  # nothing known
    whole = read_item_features(file, [5, 0])
    np.testing.assert_array_equal(found[[0, 2]], whole.matrix)


def test_an_earlier_run_fixes_how_features_become_numbers(tmp_path: Path) -> None:
    earlier = [FeatureColumn("brand", "category", ("b", "c")), FeatureColumn("price", "number")]
    file = write(tmp_path / "items.parquet", SHOES)
    found = read_item_features(file, [0, 7], columns=earlier)
    assert found.columns == earlier
    np.testing.assert_array_equal(found.matrix[:, :3], [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"item_id": "x", "brand": "a"}], {}, "no feature of any of the 2 items of the clicks"),
        ([{"item_id": 1, "brand": None}], {}, "no feature of any of the 2 items"),
        ([{"item_id": 1, "brand": "a"}] * 2, {}, "item 1 is there more than once"),
        ([{"item_id": 1, "price": float("inf")}], {}, "column 'price' has neither texts nor fin"),
        (
            [{"item_id": 1, "text": [1.0]}, {"item_id": 2, "text": [1.0, 2.0]}],
            {},
            "column 'text' has vectors of 1 and 2 numbers",
        ),
        ([{"item_id": 1, "brand": 7}], {"categories": ["size"]}, "no column 'size', only brand"),
        (
            [{"item_id": 1, "brand": 7}],
            {"columns": [FeatureColumn("size", "number")]},
            "item 1: no feature 'brand', only size",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], message: str
) -> None:
    file = write(tmp_path / "items.parquet", rows)
    with pytest.raises(DataError, match=rf"items\.parquet: .*{message}"):
        read_item_features(file, [1, 2], **options)
