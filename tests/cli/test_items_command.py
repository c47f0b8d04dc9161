"""`persona items`: new items from a file, without training."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from persona.cli.app import app
from persona.engine import Engine
from tests.versions import add_version


@pytest.fixture
def shop(shop_artifacts: Path, tmp_path: Path) -> Path:
    """A folder of the model `shop`."""
    return add_version(shop_artifacts / "shop" / "1", tmp_path, "shop", "1").parent


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(app, ["items", *map(str, words)])
    assert result.exit_code == 0, result.output
    return result.output


def test_items_of_a_parquet_file_become_a_new_version(shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.parquet"
    rows = {"item_id": ["a", "b"], "colour": [["red", "blue"], None], "price": [3.0, 4.0]}
    pq.write_table(pa.table(rows), file)
    said = run("add", file, "--artifact", shop)
    assert f"{shop / '2'}: 22 items; 2 added, 0 changed, 0 hidden" in said
    assert set(Engine.open(shop).recommend([[]], k=22).users[0].cold) == {"a", "b"}


def test_a_csv_may_hold_several_texts_in_a_field(shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text("item_id,colour,price,name\na,red|blue,3,Both\nb,red,,\n")
    run("add", file, "--artifact", shop)
    assert Engine.open(shop).encode([["a", "b"]]).users[0].unknown == 0


def test_a_removed_item_is_not_recommended(shop: Path) -> None:
    run("remove", "item 3", "item 4", "--artifact", shop)
    assert len(Engine.open(shop).recommend([[]], k=20).users[0].items) == 18
