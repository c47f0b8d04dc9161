"""`persona evaluate` on a split by time, and through an artifact and a running service."""

import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from tests.commands import SMALL, persona
from tests.serving import running_service
from tests.small import walks

RECIPE = (
    SMALL
    + """
[data]
split = "time"
held_out_share = 0.1
targets = "all"
remove_seen = {remove_seen}
"""
)


def write_clicks(path: Path) -> None:
    """Users who begin one after the other; the last ones click on an item that is new by then."""
    lines = ["user,item,time"]
    for user in range(120):
        lines += [f"{user},page{item},{10 * user + k}" for k, item in enumerate(walks()[user])]
        lines += [f"{user},new page,{10 * user + 50}"] * (user >= 115)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(
    scope="module", params=["false", "true"], ids=["seen items ranked", "seen items left out"]
)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The evaluation of a run by PyTorch, and through its artifact and a service."""
    folder = tmp_path_factory.mktemp("served")
    with chdir(folder):
        write_clicks(Path("clicks.csv"))
        Path("small.toml").write_text(RECIPE.format(remove_seen=request.param))
        persona("train", "--recipe", "small.toml", "--data", "clicks.csv", "--output", "run")
        persona("export", "run", "--name", "pages")
    with running_service(folder / "artifacts") as url, chdir(folder):
        output = persona("evaluate", "run", "--artifact", "artifacts/pages", "--url", url)
    facts: dict[str, Any] = json.loads((folder / "run" / "evaluation.json").read_text())
    return facts | {"output": output, "page": (folder / "run" / "report.html").read_text()}


def test_pytorch_onnx_and_http_rank_alike_and_the_protocol_stands_beside(
    run: dict[str, Any],
) -> None:
    scorers = run["scorers"]
    assert scorers["artifact"] == pytest.approx(scorers["encoder"])
    assert scorers["service"] == scorers["artifact"]
    assert "NDCG@10 over service: +0.0000" in run["output"]
    for text in (run["output"], run["page"], run["protocol_text"]):
        assert "time split: trained before the newest 20% of the clicks" in text
        assert "all 11 items ranked" in text


def test_cold_items_and_new_users_are_counted_apart(run: dict[str, Any]) -> None:
    assert run["apart"]["items unseen in training"]["cases"] == 5
    assert run["apart"]["users unseen in training"]["cases"] > 5
    assert "items unseen in training" in run["output"]
    assert "items unseen in training" in run["page"]
    assert "popularity-recent" in run["scorers"]
