"""Ctrl-C, and SIGTERM, a scheduler's way to say the same."""

from __future__ import annotations

import signal
import threading
from types import FrameType

_asked = threading.Event()


def listen() -> None:
    """Raise KeyboardInterrupt at either signal from now on, and remember that it came.

    Remembered it must be, since libraries turn an interruption of their code into errors of
    their own.
    """
    _asked.clear()
    if threading.current_thread() is threading.main_thread():
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, _interrupt)


def was_asked() -> bool:
    """Tell whether one of the signals has come."""
    return _asked.is_set()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _asked.set()
    raise KeyboardInterrupt
