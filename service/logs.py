"""Describes a failure for the log: its place, but never a visitor's clicks."""

import traceback


def frames(error: BaseException) -> str:
    """The traceback with the errors' types but not their messages, which may quote a history."""
    parts = []
    cause: BaseException | None = error
    while cause is not None:
        parts.append("".join(traceback.format_tb(cause.__traceback__)) + type(cause).__qualname__)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\nwhile handling, or because of, the above:\n".join(reversed(parts))
