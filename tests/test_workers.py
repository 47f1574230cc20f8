"""A function mapped by several processes: order, few items alive, and ends of all kinds."""

from __future__ import annotations

import atexit
import ctypes
import gc
import math
import multiprocessing
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from batch_nlp.errors import BatchNlpError
from batch_nlp.workers import cores, keep_freed_memory, loading, mapped, own_threads


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_items(processes: int) -> None:
    items = list(range(30))
    assert list(mapped(float, items, processes=processes)) == items
    assert not multiprocessing.active_children()


def test_no_more_items_are_read_than_two_for_each_process() -> None:
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        for item in range(12):
            read += 1
            yield item

    for n_results, _ in enumerate(mapped(abs, items(), processes=2)):
        assert read <= n_results + 4
    assert read == 12


@pytest.mark.parametrize("processes", [1, 2])
def test_what_the_function_raises_is_raised_here(processes: int) -> None:
    results = mapped(math.sqrt, [4.0, -1.0, 9.0], processes=processes)
    assert next(results) == 2.0
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(results)
    assert not multiprocessing.active_children()


def test_a_process_that_dies_is_told_in_one_line() -> None:
    with pytest.raises(BatchNlpError, match=r"worker process died.*engine\.processes=1"):
        list(mapped(os._exit, [3], processes=2))
    assert not multiprocessing.active_children()


def test_processes_end_with_a_loop_that_is_left() -> None:
    results = mapped(abs, range(100), processes=2)
    assert next(results) == 0
    assert multiprocessing.active_children()
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


class Writer:
    """Writes to a file, and is from a library that writes there at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, text: str) -> int:
        return self.path.write_text(text)

    def __reduce__(self) -> Any:
        return atexit.register, (self.path.write_text, "at the end")


def test_a_process_ends_after_what_libraries_do_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "written"
    assert list(mapped(Writer(path), ["at work"], processes=2)) == [7]
    assert path.read_text() == "at the end"


def test_a_process_takes_nothing_apart_at_its_end(tmp_path: Path) -> None:
    code = (
        f"import sys\nopen({str(tmp_path / 'made')!r}, 'w').close()\n"
        "class Held:\n"
        f"    def __del__(self, o=open): o({str(tmp_path / 'apart')!r}, 'w').close()\n"
        "sys.held = Held()\n"
    )
    assert list(mapped(exec, [code], processes=2)) == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_only_what_is_loaded_is_left_out_of_the_search_for_garbage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_library.py").write_text("made = [[] for _ in range(1000)]")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(atexit, "register", lambda function: None)
    gc.unfreeze()
    with loading():
        pass
    assert gc.get_freeze_count() == 0
    with loading():
        __import__("a_library")
    assert gc.get_freeze_count() > 1000
    gc.unfreeze()
    del sys.modules["a_library"]


def test_a_library_that_is_not_there_leaves_the_search_for_garbage_on() -> None:
    with pytest.raises(ModuleNotFoundError), loading():
        __import__("not_a_library")
    assert gc.isenabled()


def test_a_process_takes_its_share_of_the_cores() -> None:
    key = "OMP_NUM_THREADS"
    shares = set(mapped(os.getenv, [key] * 4, processes=2))
    assert shares == {str(max(1, own_threads() // 2))}


@pytest.fixture
def untuned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the C library's memory to itself, whatever this environment says of it."""
    for name in filter(re.compile("MALLOC_|GLIBC_").match, list(os.environ)):
        monkeypatch.delenv(name)


def pages_asked(begin: Callable[[], None] | None, *, threads: int) -> float:
    """Give how many times 8 MiB are asked of the kernel where 40 times so much is used again.

    With threads it is used by one after the other, and none of them ends; with none by the main
    one.
    """
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages would be few
    if begin is not None:
        begin()
    size = 1 << 23

    def use() -> None:
        [b"x" * size for _ in range(8)]

    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(threads)]
        uses = [lambda pool=pool: pool.submit(use).result() for pool in pools] or [use] * 6
        uses[0]()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for again in uses[1:]:
            again()
        asked = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return asked * resource.getpagesize() / size


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of the GNU C library")
@pytest.mark.parametrize("threads", [0, 6])
@pytest.mark.usefixtures("untuned_memory")
def test_what_is_freed_is_used_again(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    asked, keep = partial(pages_asked, threads=threads), partial(keep_freed_memory, 2)
    processes = multiprocessing.get_context("spawn")
    with processes.Pool(1) as plain, processes.Pool(1) as keeping:
        assert plain.apply(asked, [None]) > 30
        assert keeping.apply(asked, [keep]) < 4
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "100000")
    with processes.Pool(1) as told:
        assert told.apply(asked, [keep]) > 30
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_")
    assert max(mapped(asked, [None] * 2, processes=2)) < 4


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a matter of the GNU C library")
@pytest.mark.parametrize(("variable", "expected"), [(None, 40), ("1", 0)])
@pytest.mark.usefixtures("untuned_memory")
def test_many_threads_do_not_wait_for_each_other_s_memory(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, expected: int
) -> None:
    if variable is not None:
        monkeypatch.setenv("MALLOC_ARENA_MAX", variable)
    with multiprocessing.get_context("spawn").Pool(1) as many:
        begin = partial(keep_freed_memory, 16)
        assert many.apply(partial(pages_asked, threads=6), [begin]) == pytest.approx(
            expected, abs=4
        )


def blas_threads(_: int) -> list[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_the_libraries_of_a_process_keep_to_its_share() -> None:
    found = list(mapped(blas_threads, range(4), processes=cores()))
    assert found == [[1] * len(found[0])] * 4
    assert found[0]


def test_this_module_loads_no_library_before_the_threads_are_set() -> None:
    shown = "import sys, batch_nlp.workers; print('numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_a_process_takes_its_share_of_the_threads_that_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = "OMP_NUM_THREADS"
    monkeypatch.setenv(key, "6")
    assert set(mapped(os.getenv, [key] * 4, processes=2)) == {"3"}


@pytest.mark.parametrize("value", ["", "0", "-1", "many", "\u00b2"])
def test_threads_are_the_cores_where_no_number_is_set(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert own_threads() == cores()


@pytest.mark.parametrize("value", ["3", " 3 ", "3,2"])
def test_threads_are_what_is_set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert own_threads() == 3


def test_cores_are_those_that_the_process_may_use() -> None:
    """joblib counts them, with a quota of a container, and what its own variable says."""
    shown = (
        "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        "from batch_nlp.workers import cores; print(cores())"
    )
    ran = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    assert ran.stdout == "1\n"
    limited = {**os.environ, "LOKY_MAX_CPU_COUNT": "1"}
    shown = "from batch_nlp.workers import cores; print(cores())"
    command = [sys.executable, "-c", shown]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=limited)
    assert ran.stdout == "1\n"
