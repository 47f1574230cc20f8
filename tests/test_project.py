"""The repository around the program: tasks, documentation, workflows, dependencies, imports."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from packaging.requirements import Requirement

from batch_nlp import __version__
from batch_nlp.settings import verify

PROJECT = Path(__file__).resolve().parents[1]
TARGETS = {"help", "install", "run", "train", "infer", "test", "check", "docs", "clean"}
FENCES = re.MULTILINE | re.DOTALL
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "data/*.md", "models/*.md", "notebooks/*.md")
    for path in PROJECT.glob(pattern)
)


def named(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def documented_targets() -> dict[str, str]:
    """Give the targets of the Makefile that say what they do."""
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z-]+):.*?## (.+)$", text, flags=re.MULTILINE))


def fenced_lines(text: str) -> Iterator[str]:
    """Give the lines of the code blocks of a page, continued ones joined."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, flags=FENCES):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()


def commands(path: Path) -> list[list[str]]:
    """Give the commands that a page shows, split into words, comments left out."""
    return [
        shlex.split(line.removeprefix("$ "), comments=True)
        for line in fenced_lines(path.read_text(encoding="utf-8"))
        if ("start_batch_nlp.py " in line or line.startswith("make ")) and "..." not in line
    ]


def test_make_alone_lists_every_target_in_one_line() -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    ended = subprocess.run(["make", "-C", str(PROJECT)], capture_output=True, text=True, check=True)
    shown = [line for line in ended.stdout.splitlines() if not line.startswith("make")]
    told = documented_targets()
    assert set(told) >= TARGETS
    assert [line.split()[0] for line in shown] == list(told)
    for line, what in zip(shown, told.values(), strict=True):
        assert line.endswith(what)


@pytest.mark.parametrize(
    ("variables", "from_sample"),
    [
        ({}, True),
        ({"ARGS": "seed=3"}, True),
        ({"ARGS": "paths.root=/elsewhere"}, False),
        ({"ARGS": "training.features=/elsewhere"}, False),
        ({"BATCH_NLP_ROOT": "/elsewhere"}, False),
    ],
)
def test_training_takes_the_sample_where_no_other_features_are_meant(
    tmp_path: Path, variables: dict[str, str], from_sample: bool
) -> None:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    kept = {name: value for name, value in os.environ.items() if name != "BATCH_NLP_ROOT"}
    ended = subprocess.run(
        ["make", "--dry-run", "-C", str(tmp_path), "train"],
        capture_output=True,
        text=True,
        check=True,
        env=kept | variables,
    )
    assert ("training.features=data/04_feature/sample" in ended.stdout) == from_sample


def test_every_decision_is_in_the_index() -> None:
    index = (PROJECT / "docs" / "index.md").read_text(encoding="utf-8")
    decisions = [path.name for path in (PROJECT / "docs" / "decisions").glob("*.md")]
    assert [name for name in sorted(decisions) if f"(decisions/{name})" not in index] == []


def test_every_target_that_people_may_call_is_documented() -> None:
    text = (PROJECT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE)
    assert set(phony.split()) == set(documented_targets())


def test_tracked_files_are_small() -> None:
    if shutil.which("git") is None or not (PROJECT / ".git").exists():
        pytest.skip("needs a git repository")
    listed = subprocess.run(
        ["git", "-C", str(PROJECT), "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    paths = [PROJECT / name for name in listed.stdout.split("\0") if name]
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    assert len(sizes) > 50
    assets = PROJECT / "src" / "batch_nlp" / "assets"
    model = {path: size for path, size in sizes.items() if path.is_relative_to(assets)}
    assert 0 < sum(model.values()) <= 12e6
    assert [path for path, size in sizes.items() if size > 3e6 and path not in model] == []


def test_generated_files_are_ignored() -> None:
    if shutil.which("git") is None or not (PROJECT / ".git").exists():
        pytest.skip("needs a git repository")
    made = ["uv.lock", "data/01_raw/x.json", "data/04_feature/manifest.json", "models/a/current"]
    kept = ["data/README.md", "models/README.md", "data/04_feature/sample/manifest.json"]
    ignored = subprocess.run(
        ["git", "-C", str(PROJECT), "check-ignore", "--no-index", *made, *kept],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ignored.stdout.split() == made


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=FENCES)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    missing = [
        link
        for link in links
        if not re.match(r"[a-z]+:", link)
        and not (page.parent / (link.partition("#")[0] or page.name)).exists()
    ]
    assert missing == []


def test_there_are_pages_and_commands_to_check() -> None:
    assert {"README.md", "README.es.md", "docs/data_dictionary.md"} <= set(map(named, PAGES))
    assert len(commands(PROJECT / "README.md")) > 5


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_commands_that_are_shown_can_be_typed(page: Path) -> None:
    for words in commands(page):
        overrides = [word for word in words if "=" in word and not word.startswith("-")]
        if words[0] == "make":
            assert words[1] in documented_targets(), words
            if words[1].startswith("benchmark-"):  # its arguments are not the program's
                continue
            passed = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
            overrides = [each for word in passed for each in shlex.split(word)]
        if "-m" in words:  # of the alternatives of a multirun, the first
            overrides = [re.sub(r"=(\w+),.*", r"=\1", override) for override in overrides]
        with initialize_config_dir(version_base="1.3", config_dir=str(PROJECT / "conf")):
            verify(compose("config", overrides=overrides))


def test_both_languages_show_the_same_commands() -> None:
    english, spanish = (commands(PROJECT / name) for name in ("README.md", "README.es.md"))
    assert [words[0] for words in english] == [words[0] for words in spanish]
    # Names of files and folders may be translated, keys and groups may not.
    keys = [[word.partition("=")[0] for word in words if "=" in word] for words in english]
    assert keys == [[word.partition("=")[0] for word in words if "=" in word] for words in spanish]


def test_workflows_are_valid() -> None:
    files = sorted(map(str, (PROJECT / ".github" / "workflows").glob("*.yml")))
    assert len(files) >= 2
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.github-workflows"),
            *files,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout


def steps_of(tree: Any) -> Iterator[str]:
    """Give the shell lines of a workflow or of the hooks."""
    if isinstance(tree, dict):
        yield from (str(tree[key]) for key in ("run", "entry") if isinstance(tree.get(key), str))
        for each in tree.values():
            yield from steps_of(each)
    elif isinstance(tree, list):
        for each in tree:
            yield from steps_of(each)


def test_hooks_and_workflows_call_targets_that_there_are() -> None:
    files = [
        *(PROJECT / ".github" / "workflows").glob("*.yml"),
        PROJECT / ".pre-commit-config.yaml",
    ]
    told = documented_targets()
    called = set()
    for path in files:
        for line in steps_of(yaml.safe_load(path.read_text(encoding="utf-8"))):
            called |= set(re.findall(r"\bmake ([a-z-]+)", line))
    called |= set(
        re.findall(r"^make ([a-z-]+)", (PROJECT / ".ci" / "run").read_text(), re.MULTILINE)
    )
    assert {"check", "test", "train"} <= called <= set(told)


def test_continuous_integration_is_one_command() -> None:
    script = PROJECT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert {"make check", "make test"} <= set(text.splitlines())


def requirements() -> list[str]:
    """Give every direct requirement of pyproject.toml."""
    tree = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [
        tree["project"]["dependencies"],
        *tree["project"]["optional-dependencies"].values(),
        *tree["dependency-groups"].values(),
        tree["build-system"]["requires"],
    ]
    return [each for group in groups for each in group if isinstance(each, str)]


@pytest.mark.parametrize("text", requirements())
def test_every_dependency_is_bounded(text: str) -> None:
    operators = {one.operator for one in Requirement(text).specifier}
    assert operators & {">=", ">", "==", "~="}
    assert operators & {"<", "<=", "==", "~="}


def test_the_version_is_told_once() -> None:
    tree = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    assert tree["project"]["version"] == __version__


IMPORT_ALL = """
import importlib, logging, os, pkgutil, signal, sys, threading, warnings
from hydra.core.global_hydra import GlobalHydra
from loguru import logger

def state():
    return {
        "root handlers": list(logging.root.handlers),
        "root level": logging.root.level,
        "logging disabled": logging.root.manager.disable,
        "loguru": dict(logger._core.handlers),
        "hydra": GlobalHydra.instance().is_initialized(),
        "folder": os.getcwd(),
        "arguments": list(sys.argv),
        "interrupt": signal.getsignal(signal.SIGINT),
        "threads": threading.active_count(),
        "variables": {k: os.environ.get(k) for k in ("OMP_WAIT_POLICY", "HYDRA_FULL_ERROR")},
    }

before = state()
import batch_nlp
names = [each.name for each in pkgutil.walk_packages(batch_nlp.__path__, "batch_nlp.")]
for name in names:
    importlib.import_module(name)
after = state()
changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
assert not changed, changed
loaded = {"torch", "transformers", "xgboost", "matplotlib.pyplot"} & set(sys.modules)
assert not loaded, loaded
print(len(names))
"""


def test_importing_changes_nothing_and_loads_no_model_library(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert int(ended.stdout) > 30
    assert list(tmp_path.iterdir()) == []
