"""The entry script as a process: statuses, what it loads, where paths lead, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., subprocess.Popen[str]]
Cli = Callable[..., Any]

HEAVY = {"torch", "transformers", "sentence_transformers", "xgboost", "sklearn", "pandas", "duckdb"}


def loaded(code: str) -> set[str]:
    """Run code in a fresh interpreter, and give the heavy packages that it has loaded."""
    ending = "\nimport sys; print('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    ended = subprocess.run(
        [sys.executable, "-c", code + ending],
        capture_output=True,
        text=True,
        check=True,
    )
    return HEAVY & set(ended.stdout.splitlines()[-1].split())


def test_the_search_for_heavy_packages_finds_one() -> None:
    assert loaded("import duckdb") == {"duckdb"}


def test_help_loads_nothing_heavy(conf_folder: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from batch_nlp.cli import main\n"
        "sys.argv = ['start_batch_nlp.py', '--help']\n"
        f"main(Path({str(conf_folder)!r}))"
    )
    assert loaded(code) == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded("import batch_nlp, batch_nlp.cli") == set()


def test_building_the_sentence_embedder_does_not_load_torch(conf_folder: Path) -> None:
    code = (
        "from hydra import compose, initialize_config_dir\n"
        "from batch_nlp.settings import build, verify\n"
        f"with initialize_config_dir(version_base='1.3', config_dir={str(conf_folder)!r}):\n"
        "    config = compose('config', overrides=['embedder=sentence'])\n"
        "verify(config)\n"
        "assert type(build(config.embedder, 'embedder')).__name__ == 'SentenceEmbedder'\n"
        "build(config.feature, 'feature')"
    )
    assert not loaded(code) & {"torch", "transformers", "sentence_transformers"}


def test_help_says_what_to_type(start: Start, tmp_path: Path) -> None:
    process = start("--help", cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0
    assert err == ""
    for needed in (
        "pipeline=inference",
        "inference.source",
        "paths.root",
        "Exit status",
        "xgboost",
    ):
        assert needed in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_alone_is_what_hydra_makes_of_it(cli: Cli, flag: str) -> None:
    ours, hydras = cli(flag), cli(flag, "seed=1")
    assert ours == hydras
    assert "inference: default" in ours.stdout


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("asked", [("--help",), ("--cfg", "job")])
def test_a_reader_that_has_seen_enough_ends_it_quietly(
    *,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str, ...],
    buffered: bool,
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    if not buffered:
        monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    process = start(*asked, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
    process.stderr.close()


def test_without_a_root_everything_is_under_the_projects_folder(
    start: Start, tmp_path: Path, project_root: Path
) -> None:
    process = start("--cfg", "job", "--resolve", "--package", "paths", cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"root: {project_root}" in out.splitlines()


def ended_by(project_root: Path, main: str) -> subprocess.CompletedProcess[str]:
    """Run the script with the body of a function in place of the program."""
    code = (
        "import atexit, runpy, sys\n"
        "class Held:\n    def __del__(self): print('taken apart')\n"
        f"def main(folder):\n    {main}\n"
        "class Library:\n    @property\n    def main(self):\n"
        "        atexit.register(print, 'the last word', end='')\n        return main\n"
        "held = Held()\n"
        "sys.modules['batch_nlp.cli'] = Library()\n"
        f"runpy.run_path({str(project_root / 'start_batch_nlp.py')!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_it_ends_after_what_libraries_do_at_the_end_and_takes_nothing_apart(
    project_root: Path,
) -> None:
    ended = ended_by(project_root, "return 3")
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "the last word", "")


@pytest.mark.parametrize(
    ("main", "status", "said"),
    [("raise OSError('no room')", 1, ["OSError: no room"]), ("raise SystemExit(2)", 2, [])],
)
def test_what_it_did_not_expect_is_not_taken_for_an_end(
    project_root: Path, main: str, status: int, said: list[str]
) -> None:
    ended = ended_by(project_root, main)
    assert ended.returncode == status
    assert ended.stderr.splitlines()[-1:] == said
    assert ended.stdout.startswith("the last word")


def test_a_failing_script_exits_with_the_status_of_its_failure(
    start: Start, tmp_path: Path
) -> None:
    process = start("pipeline=training", "paths.root=empty", cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 2
    assert out == ""
    (line,) = err.splitlines()
    assert "run pipeline=feature first" in line


def test_ctrl_c_ends_in_one_line_and_a_record(
    start: Start, quick: tuple[str, ...], tmp_path: Path
) -> None:
    stage = "feature/extract"
    process = start("paths.root=.", "sample.n_reviews=1500", *quick, cwd=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if stage in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    process.communicate()
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "batch_nlp: Interrupted."
    assert "Traceback" not in rest
    assert "ERROR" not in rest
    (path,) = (tmp_path / "data" / "08_reporting" / "runs").glob("*/run.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["exit_status"] == 130
    assert record["error"] == "interrupted"
    assert stage in record["stages"]
    assert not (tmp_path / "data" / "09_inference" / "predictions.parquet").exists()
