"""Law 7: after the set-up, the default run needs no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GUARD = """
import os, runpy, socket, sys

def refuse(*args, **options):
    # No exception: a library may catch one and try another way.
    sys.stderr.write(f"network: {args!r}\\n")
    sys.stderr.flush()
    os._exit(99)

socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
whole = socket.socket

class Guarded(whole):
    def connect(self, address):
        if self.family != socket.AF_UNIX:
            refuse(address)
        return super().connect(address)

    connect_ex = sendto = connect

socket.socket = Guarded
if sys.argv[1] == "--try":
    import urllib.request
    urllib.request.urlopen("http://localhost:9")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", GUARD, *arguments],
        cwd=folder,
        # No proxy and no credentials: only what a bare machine has.
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_guard_holds(tmp_path: Path) -> None:
    ended = run("--try", folder=tmp_path)
    assert ended.returncode == 99
    assert ended.stderr.startswith("network: ")


def test_the_default_run(tmp_path: Path, project_root: Path) -> None:
    root = tmp_path / "root"
    script = str(project_root / "start_batch_nlp.py")
    ended = run(script, "sample.n_reviews=600", f"paths.root={root}", folder=tmp_path)
    assert ended.returncode in (0, 3), ended.stderr
    assert "network: " not in ended.stderr
    assert (root / "data" / "09_inference" / "predictions.parquet").is_file()
