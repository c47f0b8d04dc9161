"""Workers that die, hang or never start, and a supervisor that dies."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from service.errors import CannotShare
from service.shared_folder import shared_folder
from tests.service.processes import metrics_of, process, ready, wait_until_ready
from tests.serving import status_of, wait_until

pytestmark = pytest.mark.slow  # workers are killed, and start anew, for seconds each

HISTORIES = {"histories": [["item 1"], []]}


@pytest.mark.parametrize("number", [1, 2])
def test_a_worker_that_is_killed_is_replaced(tiny_artifacts: Path, number: int) -> None:
    options = ("--artifacts", str(tiny_artifacts), "--workers", str(number))
    with process(*options) as (running, url):
        before = wait_until_ready(running, url, number)
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len(ready(url) - before) == 1)
        wait_until_ready(running, url, number)
        assert httpx.post(f"{url}/v1/encode", json=HISTORIES).status_code == 200
        assert 'persona_worker_restarts_total{cause="ended"} 1.0' in metrics_of(url)
        running.terminate()
        _, log = running.communicate(timeout=60)
    assert f"(process {min(before)}) ended by SIGKILL; another starts in" in log


def test_a_killed_worker_leaves_the_gauges_but_what_it_counted_stays(tiny_artifacts: Path) -> None:
    with process("--artifacts", str(tiny_artifacts), "--workers", "2") as (running, url):
        before = wait_until_ready(running, url, 2)
        for _ in range(20):
            assert httpx.post(f"{url}/v1/encode", json=HISTORIES).status_code == 200
        counted = 'persona_requests_total{route="/v1/encode",status="200"} 20.0'
        wait_until(lambda: counted in metrics_of(url))
        for number in before:
            os.kill(number, signal.SIGKILL)
        wait_until(lambda: len(ready(url) - before) == 2)
        assert "persona_ready_workers 2.0" in metrics_of(url)
        assert counted in metrics_of(url)


def test_while_a_worker_is_replaced_the_other_one_answers_alone(tiny_artifacts: Path) -> None:
    with process("--artifacts", str(tiny_artifacts), "--workers", "2") as (running, url):
        before, seen = wait_until_ready(running, url, 2), set()
        os.kill(min(before), signal.SIGKILL)
        while len(ready(url) - before) == 0:
            with suppress(httpx.TransportError):  # the kernel may not know yet
                seen.add(httpx.post(f"{url}/v1/encode", json=HISTORIES).status_code)
        assert seen == {200}


def test_a_worker_that_hangs_is_replaced(tiny_artifacts: Path) -> None:
    options = ("--artifacts", str(tiny_artifacts), "--workers", "2")
    with process(*options, PERSONA_HANG_SECONDS="3") as (running, url):
        before = wait_until_ready(running, url, 2)
        os.kill(min(before), signal.SIGSTOP)
        wait_until(lambda: len(ready(url) - before) == 1)
        assert 'persona_worker_restarts_total{cause="hung"} 1.0' in metrics_of(url)


def test_when_the_supervisor_is_killed_its_workers_end_and_free_the_port(
    tiny_artifacts: Path,
) -> None:
    with process("--artifacts", str(tiny_artifacts), "--workers", "2") as (running, url):
        before = wait_until_ready(running, url, 2)
        running.kill()
        wait_until(lambda: not any(Path(f"/proc/{number}").exists() for number in before))
        port = url.rpartition(":")[2]
        options = ("--artifacts", str(tiny_artifacts), "--workers", "1", "--port", port)
        with process(*options) as (second, _):
            wait_until_ready(second, url)


def test_what_a_killed_supervisor_leaves_is_removed_at_the_next_start(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    def left() -> set[str]:
        return {path.name for path in tmp_path.glob("*persona-*")}

    options = ("--artifacts", str(tiny_artifacts), "--workers", "1")
    with process(*options, TMPDIR=str(tmp_path)) as (first, url):
        before = wait_until_ready(first, url)
        with process(*options, TMPDIR=str(tmp_path)) as (second, other_url):
            wait_until_ready(second, other_url)
            in_use = left()
            assert len(in_use) == 2  # the second has not removed what the first one uses
            first.kill()
            wait_until(lambda: not any(Path(f"/proc/{number}").exists() for number in before))
            with process(*options, TMPDIR=str(tmp_path)) as (third, third_url):
                wait_until_ready(third, third_url)
                assert (len(left()), len(left() & in_use)) == (2, 1)
    assert not left()


def test_a_service_whose_workers_never_start_gives_up_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "manifest.json").touch()
    # A module that only workers import, and which ends them.
    (tmp_path / "uvloop.py").write_text("import os; os._exit(7)")
    environment = {"PYTHONPATH": str(tmp_path), "PERSONA_MAX_FAILED_STARTS": "2"}
    with process("--artifacts", str(tmp_path), "--workers", "1", **environment) as (running, _):
        _, log = running.communicate(timeout=120)
    assert running.returncode == 1
    assert "2 workers in a row ended before they were ready" in log
    assert "the last one ended with status 7" in log
    assert "Traceback" not in log


def test_without_room_for_what_workers_share_the_message_says_where(tmp_path: Path) -> None:
    places = (tmp_path / "nowhere", tmp_path)
    with (
        pytest.raises(CannotShare, match=r"nowhere: no such file or directory, .* KiB free"),
        shared_folder(2**40, places),
    ):
        pass


def test_asked_to_end_it_turns_not_ready_ends_its_connections_and_exits_with_0(
    tiny_artifacts: Path,
) -> None:
    options = ("--artifacts", str(tiny_artifacts), "--workers", "2")
    with process(*options, PERSONA_DRAIN_SECONDS="2") as (running, url):
        wait_until_ready(running, url, 2)
        running.terminate()
        wait_until(lambda: status_of(f"{url}/health/ready") == 503)
        answer = httpx.post(f"{url}/v1/encode", json=HISTORIES)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert running.wait(timeout=60) == 0
