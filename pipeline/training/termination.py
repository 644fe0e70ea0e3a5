"""SIGTERM, with which a spot instance or a scheduler announces the end: heard at once, acted on between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(Exception):
    """A SIGTERM came."""


@contextmanager
def termination() -> Iterator[Callable[[], None]]:
    """Yield a function that raises `Terminated` once a SIGTERM came. Afterwards the handler is as it was.

    Python lets only the main thread handle signals; in another one the function does nothing.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    def check() -> None:
        if came:
            raise Terminated

    with handled(note):
        yield check


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` take SIGTERM. Afterwards it is as it was; in other threads than the main one it always is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        # None: it was not set from Python, so it cannot be set back from here.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
