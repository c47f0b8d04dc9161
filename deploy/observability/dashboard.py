"""Writes the Grafana dashboard: `python -m deploy.observability.dashboard`.

A panel is a title, a unit, and queries with legends; the rest of its JSON is the same for all.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "grafana" / "dashboards" / "persona.json"
PER_ROW, WIDTH, HEIGHT = 3, 8, 8

Query = tuple[str, str]  # PromQL, and the legend of its series


def quantile(share: float, name: str, by: str) -> str:
    """A quantile of a histogram over the last minutes."""
    buckets = f"sum by (le, {by}) (rate({name}_bucket[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


def rate(name: str, by: str = "", where: str = "") -> str:
    """A counter's rate, summed."""
    total = f"(rate({name}{where}[$__rate_interval]))"
    return f"sum by ({by}) {total}" if by else f"sum{total}"


def share(part: str, whole: str) -> str:
    """A rate over another one, by model."""
    return f"{rate(part, 'model')} / {rate(whole, 'model')}"


def quantiles(name: str, by: str) -> list[Query]:
    """Medians and 99th percentiles of a histogram."""
    legend = "{{" + by + "}}"
    return [(quantile(q, name, by), f"{legend} p{q * 100:g}") for q in (0.5, 0.99)]


CLICKS = "persona_history_length_sum"
HISTORIES = "persona_history_length_count"
REAL, COMPUTED = "persona_real_tokens_total", "persona_computed_tokens_total"
SAMPLED, POPULAR = "persona_sampled_clicks_total", "persona_sampled_popular_clicks_total"
UNKNOWN = "persona_unknown_clicks_total"
COLD, TRUNCATED = "persona_cold_histories_total", "persona_truncated_histories_total"


def beside_training(now: str, fact: str) -> list[Query]:
    """Panels that compare the current clicks with the training clicks."""
    training = f"max by (model) (persona_training_{fact})"
    return [(now, "{{model}} now"), (training, "{{model}} in training")]


PANELS: Sequence[tuple[str, str, Sequence[Query]]] = (
    (
        "Answers",
        "reqps",
        [(rate("persona_requests_total", "route, status"), "{{route}} {{status}}")],
    ),
    ("Refused and failed, by cause", "reqps", [(rate("persona_errors_total", "code"), "{{code}}")]),
    ("Workers that are ready", "none", [("sum(persona_ready_workers)", "ready")]),
    ("Time of a request", "s", quantiles("persona_request_seconds", "route")),
    ("Time in the queue", "s", quantiles("persona_queue_seconds", "model")),
    ("Computing of a run", "s", quantiles("persona_run_seconds", "model")),
    ("Tokens that wait", "none", [("sum by (model) (persona_queued_tokens)", "{{model}}")]),
    (
        "Tokens of a run",
        "none",
        [(share("persona_run_tokens_sum", "persona_run_tokens_count"), "{{model}} mean")],
    ),
    ("Padding", "percentunit", [(f"1 - {share(REAL, COMPUTED)}", "{{model}}")]),
    (
        "Histories, by model and version",
        "reqps",
        [(rate("persona_histories_total", "model, version"), "{{model}} {{version}}")],
    ),
    (
        "Workers that have a version loaded",
        "none",
        [("sum by (model, version) (persona_loaded_versions)", "{{model}} {{version}}")],
    ),
    (
        "Versions that are refused or damaged",
        "none",
        [("max by (model, version) (persona_broken_artifacts)", "{{model}} {{version}}")],
    ),
    (
        "Rollouts, by outcome",
        "none",
        [
            (
                "sum by (model, outcome) (increase(persona_rollouts_total[$__rate_interval]))",
                "{{model}} {{outcome}}",
            )
        ],
    ),
    (
        "Cold starts and truncated histories",
        "percentunit",
        [
            (share(COLD, HISTORIES), "{{model}} without a known item"),
            (share(TRUNCATED, HISTORIES), "{{model}} truncated"),
        ],
    ),
    (
        "Drift: length of histories",
        "none",
        beside_training(share(CLICKS, HISTORIES), "history_length"),
    ),
    (
        "Drift: unknown items",
        "percentunit",
        beside_training(share(UNKNOWN, CLICKS), "unknown_share"),
    ),
    (
        "Drift: clicks on popular items",
        "percentunit",
        beside_training(share(POPULAR, SAMPLED), "popular_share"),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    return {
        "uid": "persona",
        "title": "Persona",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "tags": ["persona"],
        "panels": [_panel(number, *panel) for number, panel in enumerate(PANELS)],
    }


def _panel(number: int, title: str, unit: str, queries: Sequence[Query]) -> dict[str, Any]:
    row, column = divmod(number, PER_ROW)
    source = {"type": "prometheus", "uid": "prometheus"}
    targets = [
        {"refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend, "datasource": source}
        for n, (expr, legend) in enumerate(queries)
    ]
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def written() -> str:
    """The dashboard's file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(written())
