"""schemathesis plays the OpenAPI document against a running service."""

from pathlib import Path

import pytest

from bench.generated import describe, play
from tests.serving import serving


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_generated_request_is_answered_in_another_way_than_documented(
    tiny_artifacts: Path,
) -> None:
    with serving(tiny_artifacts) as client:
        report = play(str(client.base_url).rstrip("/"), 30, seed=1)
    assert report["test_cases"]["generated"] > 500
    assert not describe(report)
