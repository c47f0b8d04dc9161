"""A process that scores parts; `persona.scoring.processes` starts it as a program.

It reads pickled parts from its standard input, and writes scored ones to its standard output. So it
needs nothing of the program that started it, such as a `__main__` that can be imported twice. Its
input ends when that program ends, even by SIGKILL, and then it ends as well.
"""

import os
import pickle
import queue
import sys
import threading
from typing import Any, BinaryIO

from persona.scoring.errors import InternalError


def main() -> None:
    """Opens the model that the first message names, and scores parts until the input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a library prints must not get between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    parts: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, parts), daemon=True).start()
    artifact, plan = parts.get()
    try:
        from persona.scoring.in_process import EngineScorer  # noqa: PLC0415  # may lack an extra

        scorer = EngineScorer(artifact, plan)
    except ImportError as error:
        _answer(answers, error)
        return
    except Exception as error:  # noqa: BLE001  # the border of a process; the other side raises it
        _answer(answers, InternalError.of(error))
        return
    _answer(answers, scorer.facts)
    while True:
        _answer(answers, scorer.score(parts.get()))


def _read(messages: BinaryIO, parts: "queue.SimpleQueue[Any]") -> None:
    """Reads ahead, so that the next part is there when one is done; ends the process at the end."""
    try:
        while True:
            parts.put(pickle.load(messages))  # noqa: S301  # from our own program
    finally:
        os._exit(0)


def _answer(answers: BinaryIO, message: object) -> None:
    pickle.dump(message, answers, pickle.HIGHEST_PROTOCOL)
    answers.flush()


if __name__ == "__main__":
    main()
