"""What a service keeps is counted, and no answer shows it."""

from pathlib import Path

import httpx

from tests.serving import serving

HISTORIES = [[f"item {n}" for n in range(length)] for length in (3, 4, 4)]
COUNTS = {  # of these histories, one after the other
    'persona_found_histories_total{model="tiny",outcome="whole",version="1"}': 1,
    'persona_found_histories_total{model="tiny",outcome="continued",version="1"}': 2,
    'persona_found_histories_total{model="tiny",outcome="new",version="1"}': 0,
    'persona_found_clicks_total{model="tiny",outcome="saved",version="1"}': 7,
    'persona_found_clicks_total{model="tiny",outcome="computed",version="1"}': 4,
}
KEPT = 'persona_kept_histories{model="tiny",version="1"}'


def metrics(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    found = [line.rpartition(" ") for line in lines if line[0] != "#"]
    return {name: float(value) for name, _, value in found}


def test_what_is_kept_is_counted(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts, kept_megabytes=10, kept_clicks=1) as client:
        before = metrics(client)
        for history in HISTORIES:
            client.post("/v1/encode", json={"histories": [history]}).raise_for_status()
        after = metrics(client)
    assert {name: after[name] - before.get(name, 0) for name in COUNTS} == COUNTS
    assert after[KEPT] == 1


def test_an_answer_does_not_show_whether_others_asked_before(tiny_artifacts: Path) -> None:
    body = {"histories": [["item 1", "item 2"]]}
    with serving(tiny_artifacts, kept_megabytes=10, kept_clicks=1) as client:
        first, second = (client.post("/v1/encode", json=body) for _ in range(2))
    assert first.json() == second.json()
    assert first.headers.keys() == second.headers.keys()
