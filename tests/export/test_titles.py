"""Names, links and examples for people, from files into an artifact and out of it."""

import json
from pathlib import Path

import pytest

from export.errors import TitlesError
from export.titles import ForPeople
from export.write import Description, write_artifact, write_for_people
from persona.artifact import Artifact, ArtifactError, open_artifact
from persona.artifact.format import ITEM_IDS, ITEM_TITLES, checksum
from persona.artifact.titles import Titles
from persona.contract import ItemId
from tests.conftest import TINY, random_encoder

LINK = "https://shop.example/{item_id}"


@pytest.fixture(scope="module")
def plain(tiny_artifact: Path) -> Artifact:
    return open_artifact(tiny_artifact)


def titled(plain: Artifact, folder: Path, about: ForPeople, item_ids: list[ItemId]) -> Artifact:
    """An artifact with these items, and what is said of them; it has no graphs."""
    folder.mkdir(exist_ok=True)
    (folder / ITEM_IDS).write_text(json.dumps(item_ids))
    write_for_people(folder, about, item_ids)
    files = {path.name: checksum(path) for path in folder.iterdir()}
    changes = {"n_items": len(item_ids), "files": files}
    return Artifact(folder, plain.manifest.model_copy(update=changes), plain.golden)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def names(found: list[object]) -> list[str]:
    return [one.name for one in found]  # type: ignore[attr-defined]  # of ItemTitle


def test_names_and_links_come_out_as_they_went_in(plain: Artifact, tmp_path: Path) -> None:
    rows = "item_id,name,link\n7,Chess,\nb,,http://b.example/x\n"
    about = ForPeople(written(tmp_path / "titles.csv", rows), LINK)
    titles = Titles(titled(plain, tmp_path / "shop", about, [7, "b", "c d"]))
    assert [(one.item_id, one.name, one.link) for one in titles.search("", 9)] == [
        (7, "Chess", "https://shop.example/7"),
        ("b", "b", "http://b.example/x"),
        ("c d", "c d", "https://shop.example/c%20d"),
    ]


def test_without_titles_the_ids_stand_for_them(plain: Artifact) -> None:
    assert not plain.examples
    assert Titles(plain).search("ITEM 1", 2)[0].name == "item 1"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sun", ["Sun", "Sunday", "The Sun King", "Midsun"]),
        ("PELE", ["Pelé"]),
        ("nothing like it", []),
    ],
)
def test_the_closest_name_comes_first(
    plain: Artifact, tmp_path: Path, text: str, found: list[str]
) -> None:
    ids: list[ItemId] = ["Midsun", "The Sun King", "Sunday", "Sun", "Pelé"]
    assert (
        names(list(Titles(titled(plain, tmp_path / "shop", ForPeople(), ids)).search(text, 9)))
        == found
    )


def test_an_item_is_found_by_its_id_too(plain: Artifact, tmp_path: Path) -> None:
    about = ForPeople(written(tmp_path / "titles.csv", "item_id,name\n7,Chess\n8,Draughts\n"))
    assert names(list(Titles(titled(plain, tmp_path / "shop", about, [7, 8])).search("7", 9))) == [
        "Chess"
    ]


@pytest.mark.parametrize(
    ("rows", "link", "problem"),
    [
        ("id,name\n1,a\n", None, "expected the columns item_id, name, link, got id, name"),
        ("item_id,name\nz,a\n", None, "the model knows no item 'z'"),
        ("item_id,link\na,javascript:alert(1)\n", None, "is not an http or https address"),
        ("item_id\n", "https://shop.example/", "has no {item_id} in it"),
    ],
)
def test_titles_that_cannot_be_used_are_named(
    plain: Artifact, tmp_path: Path, rows: str, link: str | None, problem: str
) -> None:
    about = ForPeople(written(tmp_path / "titles.csv", rows), link)
    with pytest.raises(TitlesError) as caught:
        titled(plain, tmp_path / "shop", about, ["a"])
    assert problem in str(caught.value)


def test_examples_ship_and_must_be_known(plain: Artifact, tmp_path: Path) -> None:
    text = '{"examples": [{"name": "Two", "history": ["a", "a"]}]}'
    about = ForPeople(examples=written(tmp_path / "examples.json", text))
    assert titled(plain, tmp_path / "shop", about, ["a"]).examples[0].history == ["a", "a"]
    with pytest.raises(TitlesError, match="'Two': the model knows no item 'a'"):
        titled(plain, tmp_path / "other", about, ["b"])


def test_an_artifact_with_a_dangerous_link_is_refused(plain: Artifact, tmp_path: Path) -> None:
    artifact = titled(plain, tmp_path, ForPeople(link=LINK), ["a"])
    path = artifact.folder / ITEM_TITLES
    path.write_text(path.read_text().replace("https:", "javascript:"))
    with pytest.raises(ArtifactError, match=r"links\.0"):
        Titles(artifact)


def test_titles_of_other_items_are_refused(plain: Artifact, tmp_path: Path) -> None:
    artifact = titled(plain, tmp_path, ForPeople(link=LINK), ["a", "b"])
    (artifact.folder / ITEM_TITLES).write_text('{"links": [null]}')
    with pytest.raises(ArtifactError, match="1 links, the manifest says 2"):
        Titles(artifact)


def test_an_export_carries_titles_and_examples(tmp_path: Path) -> None:
    example = {"examples": [{"name": "Two", "history": ["a", "a"]}]}
    path = written(tmp_path / "examples.json", json.dumps(example))
    about = Description("shop", for_people=ForPeople(link=LINK, examples=path))
    folder = write_artifact(random_encoder(TINY, 2), ["a", "b"], about, tmp_path / "root")
    artifact = open_artifact(folder)
    assert [example.name for example in artifact.examples] == ["Two"]
    assert Titles(artifact).of_row(1).link == "https://shop.example/b"


def test_options_say_where_the_texts_came_from() -> None:
    about = ForPeople(Path("a b.csv"), LINK)
    assert about.options() == " --titles 'a b.csv' --link 'https://shop.example/{item_id}'"
