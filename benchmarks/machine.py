"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def machine() -> str:
    """Name the processor, the cores and the memory; never the host."""
    info = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if info.is_file():
        lines = (line.partition(":") for line in info.read_text(encoding="utf-8").splitlines())
        facts = {key.strip(): value.strip() for key, _, value in lines}
        name = facts.get("model name", name)
        # A name may stand for many generations.
        if {"cpu family", "model"} <= facts.keys():
            name += f" (family {facts['cpu family']}, model {facts['model']})"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}"
