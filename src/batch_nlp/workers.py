"""What a process needs that works beside others: start, share of the cores, items in order."""

from __future__ import annotations

import atexit
import ctypes
import gc
import multiprocessing
import os
import pickle  # nosec B403
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

from batch_nlp.errors import BatchNlpError

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2
"""Items that each process may have been handed and not given back."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": (-3, 1 << 25), "MALLOC_TRIM_THRESHOLD_": (-1, 1 << 28)}
"""Numbers of two parameters of the GNU C library's ``mallopt``, and what they are set to.

Up to its version 2.34 it takes no higher threshold for what is mapped by itself.
"""

_THREADS_PER_ARENA = 2
"""With an arena for each thread, what one has freed is of no use to the others."""

_function: Callable[[Any], Any] | None = None


def cores() -> int:
    """Give how many cores this process may use, with a container's quota taken into account.

    Examples
    --------
    >>> cores() >= 1
    True
    """
    # Not above: a worker process reads this file before its threads are set, and joblib has
    # NumPy start as many as there are cores.
    from joblib import cpu_count  # noqa: PLC0415

    return int(cpu_count())


def own_threads() -> int:
    """Give how many threads this process should use: every core, or what is set or is its share."""
    # OpenMP takes a list too, one number for each level.
    first, *_ = os.environ.get(_THREADS[0], "").split(",")
    return int(first) if first.strip().isdecimal() and int(first) else cores()


def keep_freed_memory(threads: int) -> None:
    """Have this process keep what it frees for what it needs next.

    Else the kernel takes it and clears it anew, page by page, for each batch. Where the C library
    is another than GNU's nothing is changed, nor is a parameter whose variable is set.

    Parameters
    ----------
    threads : int
        How many work at once. Two of them use the same memory, and all where they are no more.
    """
    set_parameter = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    arenas = max(1, threads // _THREADS_PER_ARENA)
    for name, setting in {**_KEPT_MEMORY, "MALLOC_ARENA_MAX": (-8, arenas)}.items():
        if set_parameter is not None and name not in os.environ:
            set_parameter(*setting)


@contextmanager
def loading() -> Iterator[None]:
    """Load libraries without a search for garbage, nor later one in what they have made.

    Where nothing is loaded that was not there, nothing is left out of later searches.

    Examples
    --------
    >>> with loading():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    n_loaded = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > n_loaded:
            gc.freeze()
            # Some complain of what is still there where the interpreter takes all apart at its end.
            atexit.register(gc.unfreeze)
        gc.enable()


def mapped(
    function: Callable[[Item], Result], items: Iterable[Item], *, processes: int
) -> Iterator[Result]:
    """Apply `function` to each item, and give the results in the order of the items.

    With more than one process the items are computed ahead, but never more than two for each
    process, so that what is alive does not depend on how many items there are. The processes
    share the cores, and end with this one, however it ends.

    Parameters
    ----------
    function : callable
        For several processes it must be picklable; each of them has a copy of its own.
    items : iterable
        Read as they are needed.
    processes : int
        1 computes in this process.

    Yields
    ------
    object
        What `function` returns, or raises.

    Raises
    ------
    BatchNlpError
        If a process dies, as when the machine runs out of memory.

    Examples
    --------
    >>> list(mapped(abs, [-1, 2], processes=1))
    [1, 2]
    """
    if processes == 1:
        yield from map(function, items)
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes,
        # A fork would copy locks that threads of the libraries hold.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare,
        initargs=(pickle.dumps(function), max(1, own_threads() // processes)),
    )
    ended = False
    try:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(_apply, item))
            if len(pending) >= _AHEAD * processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        ended = True
    except BrokenProcessPool as error:
        message = (
            "A worker process died, most likely for want of memory: set engine.processes=1 or a "
            "smaller engine.batch_rows."
        )
        raise BatchNlpError(message) from error
    finally:
        if not ended:
            # What they are at is of no use any more.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
        pool.shutdown(cancel_futures=True)


def read_ahead(items: Iterable[Item], ahead: int) -> Generator[Item]:
    """Give the items, the next ones being made by a thread while the last one is in use.

    Parameters
    ----------
    items : iterable
    ahead : int
        How many items are made, or being made, beside the one in use.

    Examples
    --------
    >>> list(read_ahead("abc", 2))
    ['a', 'b', 'c']
    """
    end = object()
    upcoming: deque[Future[Any]] = deque()
    with closing(_each(items)) as iterator, ThreadPoolExecutor(1) as thread:
        try:
            for _ in range(ahead):
                upcoming.append(thread.submit(next, iterator, end))
            while (item := upcoming.popleft().result()) is not end:
                upcoming.append(thread.submit(next, iterator, end))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)


def _each(items: Iterable[Item]) -> Generator[Item]:
    yield from items


def _prepare(pickled: bytes, threads: int) -> None:
    """Make a new process ready: its share of the threads, then the function and its libraries."""
    global _function  # noqa: PLW0603  what a pool's initializer is for
    # Ctrl-C reaches every process of the terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    keep_freed_memory(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Before the libraries are there, so that it is done after what they do at the end.
    atexit.register(os._exit, 0)
    with loading():
        # From the process that started this one.
        _function = pickle.loads(pickled)  # noqa: S301  # nosec B301


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _apply(item: Any) -> Any:
    if _function is None:
        message = "A worker process was not made ready."
        raise RuntimeError(message)
    return _function(item)
