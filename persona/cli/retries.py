"""Prints why a request is retried, in place of stamina's own log line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from stamina.instrumentation import RetryDetails, set_on_retry_hooks


@contextmanager
def announced_retries(
    console: Console, describe: Callable[[Exception], str] = str
) -> Iterator[None]:
    """Prints a line for each retry; `describe` puts the failure into words."""

    def announce(details: RetryDetails) -> None:
        failure = describe(details.caused_by)
        console.print(f"{failure}; trying again in {details.wait_for:.1f} s", markup=False)

    set_on_retry_hooks([announce])
    try:
        yield
    finally:
        set_on_retry_hooks(None)
