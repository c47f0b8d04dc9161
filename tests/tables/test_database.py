"""DuckDB as a calculator."""

from pathlib import Path

import pytest

from persona.tables import TableError
from persona.tables.database import Database, expression, identifier, literal


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database("clicks.csv", "100MB", tmp_path)


def test_it_draws_no_progress_on_stdout(database: Database) -> None:
    with database:
        assert database.row("SELECT current_setting('enable_progress_bar')") == (False,)


@pytest.mark.parametrize(
    "sql", ["SET threads = 1", "ATTACH '/tmp/a.db'", "COPY (SELECT 1) TO '/tmp/a'", "LOAD httpfs"]
)
def test_nothing_reaches_out_of_it(database: Database, sql: str) -> None:
    with database, pytest.raises(TableError, match=r"clicks\.csv: "):
        database.row(sql)


def test_what_stands_in_quotes_stays_there(database: Database) -> None:
    text = 'it\'s "quoted"'
    with database:
        assert database.table(f"SELECT {literal(text)} AS {identifier(text)}").to_pylist() == [
            {text: text}
        ]


def test_an_expression_loses_its_comment() -> None:
    assert expression("a = 1 -- or not") == "a = 1"
