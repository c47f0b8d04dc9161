"""How many requests a window lets through."""

import threading
import time

import pytest

from persona.contract import DeadlineExceeded, Overloaded
from persona.scoring.window import FIRST_SIZE, MAX_MISSED_DEADLINES, Closed, Window


def window(largest: int = 64, patience_s: float = 300.0) -> Window:
    return Window(largest, patience_s, lambda _: None)


def overloaded(retry_after_s: float | None = 0.0) -> Overloaded:
    error = Overloaded("too much")
    error.retry_after_s = retry_after_s
    return error


def entered(window: Window) -> int:
    """How many requests are let through now."""
    ended = threading.Event()

    def enter() -> None:
        try:
            while True:
                window.enter()
                count.append(1)
        except Closed:
            ended.set()

    count: list[int] = []
    threading.Thread(target=enter, daemon=True).start()
    known = -1
    while known != len(count):  # until no more come
        known = len(count)
        time.sleep(0.05)
    window.close()
    ended.wait()
    return known


def test_it_begins_with_a_few() -> None:
    assert entered(window()) == FIRST_SIZE


def test_it_is_never_larger_than_allowed() -> None:
    small = window(largest=2)
    for _ in range(50):
        small.enter()
        small.answered()
    assert entered(small) == 2


def test_it_grows_by_one_for_each_round_of_answers() -> None:
    growing = window()
    for _ in range(FIRST_SIZE + FIRST_SIZE + 1 + 1):
        growing.enter()
        growing.answered()
    assert entered(growing) == FIRST_SIZE + 2


def test_it_is_halved_once_for_requests_that_fail_together() -> None:
    halved = window()
    sent = [halved.enter() for _ in range(FIRST_SIZE)]
    for at in sent:
        halved.failed(overloaded(), at)
    assert entered(halved) == FIRST_SIZE // 2


def test_a_pause_that_the_service_asks_for_is_kept() -> None:
    paused = window()
    paused.failed(overloaded(0.3), paused.enter())
    began = time.monotonic()
    paused.enter()
    assert time.monotonic() - began >= 0.25


def test_it_gives_up_when_nothing_is_answered_for_too_long() -> None:
    impatient = window(patience_s=5.0)
    sent = impatient.enter()
    with pytest.raises(Overloaded, match="too much"):
        impatient.failed(overloaded(60.0), sent)


def test_it_gives_up_after_many_missed_deadlines_in_a_row() -> None:
    late = DeadlineExceeded("too late")
    late.retry_after_s = 0.0
    waiting = window()
    for _ in range(MAX_MISSED_DEADLINES - 1):
        waiting.failed(late, waiting.enter())
    sent = waiting.enter()
    with pytest.raises(DeadlineExceeded):
        waiting.failed(late, sent)


def test_it_tells_once_that_requests_failed() -> None:
    told: list[str] = []
    telling = Window(64, 300.0, told.append)
    sent = [telling.enter() for _ in range(2)]
    for at in sent:
        telling.failed(overloaded(0.0), at)
    assert told == ["too much; trying again in 0.0 s"]


def test_no_thread_is_forgotten() -> None:
    busy, passed = window(largest=8), list[int]()
    failures = iter([False, True, False, False, True] * 100)

    def ask() -> None:
        while True:
            sent = busy.enter()
            time.sleep(0.005)  # others wait for a place meanwhile
            if not next(failures):
                break
            busy.failed(overloaded(0.01), sent)
        busy.answered()
        passed.append(1)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(200)]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + 30
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    assert len(passed) == len(threads)
