"""Law 5: a failure ends in one clear line and a non-zero exit status; the traceback is kept."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

BROAD = {"Exception", "BaseException"}


def broad_handlers(path: Path) -> list[str]:
    """Name the functions of a module that swallow any exception at all."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.Module | ast.AsyncFunctionDef):
            continue
        for node in ast.iter_child_nodes(function):
            for inner in _within(node):
                if isinstance(inner, ast.ExceptHandler) and _is_broad(inner):
                    name = getattr(function, "name", "<module>")
                    found.append(f"{path.name}:{name}")
    return found


def _within(node: ast.AST) -> list[ast.AST]:
    """Give a node and all below it, the bodies of inner functions aside."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    below = [inner for child in ast.iter_child_nodes(node) for inner in _within(child)]
    return [node, *below]


def _is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    named = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    last = handler.body[-1]
    passes_on = isinstance(last, ast.Raise) and last.exc is None
    return bool(named & BROAD) and not passes_on


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f():\n try: g()\n except Exception: pass", ["m.py:f"]),
        ("def f():\n try: g()\n except: pass", ["m.py:f"]),
        ("class A:\n def f(self):\n  try: g()\n  except (OSError, BaseException): h()", ["m.py:f"]),
        ("try: g()\nexcept Exception as e: raise ValueError from e", ["m.py:<module>"]),
        ("try: g()\nexcept BaseException:\n h()\n raise", []),
        ("try: g()\nexcept OSError: pass", []),
    ],
)
def test_the_search_finds_what_it_is_for(tmp_path: Path, code: str, expected: list[str]) -> None:
    (tmp_path / "m.py").write_text(code)
    assert broad_handlers(tmp_path / "m.py") == expected


def test_only_the_outermost_frame_catches_everything(project_root: Path) -> None:
    modules = sorted((project_root / "src").rglob("*.py"))
    assert len(modules) > 30
    found = [
        each
        for path in [*modules, project_root / "start_batch_nlp.py"]
        for each in broad_handlers(path)
    ]
    assert found == ["run.py:_recorded"]


def no_messages(root: Path, _: pytest.MonkeyPatch) -> list[str]:
    return ["dataset=messages", f"inference.source={root}/none.csv"]


def not_one_good_row(root: Path, _: pytest.MonkeyPatch) -> list[str]:
    (root / "new.csv").write_text("id,text\n1,\n2,  \n")
    return ["dataset=messages", f"inference.source={root}/new.csv"]


def no_model(root: Path, _: pytest.MonkeyPatch) -> list[str]:
    shutil.rmtree(root / "models")
    return []


def a_damaged_model(root: Path, _: pytest.MonkeyPatch) -> list[str]:
    version = (root / "models" / "sentiment" / "current").read_text().strip()
    path = root / "models" / "sentiment" / version / "model_pipeline.joblib"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    return []


def a_model_below_the_gate(root: Path, _: pytest.MonkeyPatch) -> list[str]:
    return ["pipeline=training", "classifier=prior"]


def a_fault_of_the_program(root: Path, patch: pytest.MonkeyPatch) -> list[str]:
    from batch_nlp.inference import job

    def fail(*args: Any) -> None:
        message = "nothing was\nforeseen"
        raise IndexError(message)

    patch.setattr(job, "predict", fail)
    return []


FAILURES = [
    (no_messages, 2, "inference.source: ", "does not exist"),
    (not_one_good_row, 2, "None of 2 rows of", "see "),
    (no_model, 1, "No model is in use in", "run pipeline=training first"),
    (a_damaged_model, 1, "model_pipeline.joblib", ""),
    (a_model_below_the_gate, 1, "f1_macro is", "below training.thresholds.f1_macro"),
    (a_fault_of_the_program, 1, "IndexError: nothing was", "run.log"),
]


@pytest.mark.parametrize(("spoil", "status", "what", "where"), FAILURES)
def test_a_failing_run(
    *,
    cli: Cli,
    root: Path,
    fast: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, pytest.MonkeyPatch], list[str]],
    status: int,
    what: str,
    where: str,
) -> None:
    runs = root / "data" / "08_reporting" / "runs"
    before = set(runs.iterdir())
    ended = cli(*fast, "pipeline=inference", f"paths.root={root}", *spoil(root, monkeypatch))
    assert ended.status == status
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert [line for line in lines if "ERROR" in line] == lines
    assert len(lines) == 1
    assert what in lines[0]
    assert where in lines[0]
    (run,) = set(runs.iterdir()) - before
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert record["exit_status"] == status
    assert record["error"]
    assert record["error"] in lines[0]
    log = (run / "run.log").read_text(encoding="utf-8")
    assert "Traceback (most recent call last)" in log
    assert record["error"] in log


def test_a_run_that_may_not_end_outside_the_band(
    cli: Cli, root: Path, fast: tuple[str, ...], last_run: Callable[[Path], dict[str, Any]]
) -> None:
    narrow = ("pipeline=inference", "inference.shares.low=0.4", f"paths.root={root}")
    for choice, status in (("fail", 1), ("report", 3)):
        ended = cli(*fast, *narrow, f"pipeline.on_skew={choice}")
        assert ended.status == status
        assert "outside the band of 40% to 90%" in ended.stderr
        assert last_run(root)["exit_status"] == status
        assert last_run(root)["shares"]["verdict"] == "outside"


def test_a_root_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = cli(f"paths.root={tmp_path / 'file'}")
    assert ended.status == 2
    assert len(ended.stderr.splitlines()) == 1
    assert f"paths.root={tmp_path / 'file'}" in ended.stderr


def test_an_interruption_is_told_and_recorded(
    cli: Cli,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    last_run: Callable[[Path], dict[str, Any]],
) -> None:
    from batch_nlp.inference import job

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "predict", interrupt)
    ended = cli("pipeline=inference", f"paths.root={root}", "logs.level=WARNING")
    assert ended.status == 130
    assert ended.stderr.splitlines() == ["batch_nlp: Interrupted."]
    assert last_run(root)["exit_status"] == 130
