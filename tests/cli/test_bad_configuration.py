"""A mistake on the command line: status 2 and one line that names the key; nothing is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]

MISTAKES = [
    # What is misspelt, and what the one line must say.
    (["training.blance=none"], "training.blance is unknown; training takes", "balance"),
    (["+training.blance=none"], "training.blance is unknown; training takes", "balance"),
    (
        ["classifier=xgboost", "+classifier.n_estimatorz=3"],
        "classifier.n_estimatorz is unknown",
        "n_estimators",
    ),
    (["classifier=logistic", "+classifier.CC=3"], "classifier.CC is unknown", "max_iter"),
    (["dataset=messages", "dataset.colums.id=x"], "dataset.colums is unknown", "columns"),
    (["dataset=messages", "+dataset.colums.id=x"], "dataset.colums is unknown", "columns"),
    (["dataset=messages", "dataset.columns.idd=x"], "dataset.columns.idd is unknown", "rating"),
    (["dataset.path=x.csv"], "dataset.path is unknown; dataset takes", "sample"),
    (["+training.model.learn.text.estimator.vocabulary.min_dff=2"], "vocabulary", "'min_dff'"),
    (["pipeline=fulll"], "pipeline=fulll is unknown", "feature, full, inference"),
    (["experiment=nope"], "experiment=nope is unknown", "compact"),
    (["experimnt=compact"], "experimnt is unknown; the configuration takes", "classifier"),
    (["+foo=3"], "foo is unknown; the configuration takes", "classifier"),
    (["~feature"], "feature is missing", ""),
    (["~classifier"], "training.model.classifier", "'classifier' not found"),
    (["classifier=3"], "group override must be a string", ""),
    # What has a wrong value.
    (["sample.n_reviews=hello"], "sample.n_reviews: ", "'hello'"),
    (["sample.n_reviews=-5"], "n_reviews", "-5"),
    (["engine.batch_rows=hello"], "engine.batch_rows: ", "'hello'"),
    (["inference.shares.low=x"], "inference.shares.low: ", "'x'"),
    (["training.split.by=tme"], "training.split.by: ", "'tme'"),
    (["training.split.test_share=0.9"], "training.split.test_share must be", "0.9"),
    (["pipeline.on_skew=explode"], "pipeline.on_skew: ", "'explode'"),
    (["seed=hello"], "seed: ", "'hello'"),
    (["force=no"], "force: input should be a valid boolean", "'no'"),
    (["inference.csv=off"], "inference.csv: input should be a valid boolean", "'off'"),
    (["engine.batch_rows=1e4"], "engine.batch_rows: input should be a valid integer", "10000.0"),
    (["wait='5'"], "wait: input should be a valid number", "'5'"),
    (["model.name=../x"], "model's name", "'../x'"),
    (["dataset=messages", "dataset.path="], "dataset.path must name the messages", "not set"),
    (["dataset=yelp"], "dataset.review must name the review file", "not set"),
    (["pipeline=inference", "dataset._target_=os.system"], "dataset._target_ must", "'os.system'"),
    # What cannot be read at all.
    (["pipeline"], "'pipeline' cannot be read", "write key=value"),
    (["dataset.path=/a(1).csv"], "'dataset.path=/a(1).csv' cannot be read", "quotes"),
    (["classifier=logistic,prior"], "classifier=logistic,prior", "--multirun"),
]


@pytest.mark.parametrize(
    ("overrides", "what", "detail"), MISTAKES, ids=[" ".join(each[0]) for each in MISTAKES]
)
def test_one_line_names_the_key(
    cli: Cli, tmp_path: Path, overrides: list[str], what: str, detail: str
) -> None:
    root = tmp_path / "root"
    ended = cli(f"paths.root={root}", *overrides)
    assert ended.status == 2
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert what in line
    assert detail in line
    assert not list((root / "data").glob("0[1-7]_*"))
    assert not (root / "models").exists()


def test_a_root_that_is_no_folder_is_not_taken_for_the_working_directory(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = cli("paths.root=")
    assert ended.status == 2
    assert "paths.root must name a folder" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_in_a_multirun_too(cli: Cli, tmp_path: Path) -> None:
    ended = cli("-m", "classifier=logistic,nope", f"paths.root={tmp_path / 'root'}")
    assert ended.status == 2
    (line,) = ended.stderr.splitlines()
    assert "classifier=nope is unknown" in line


def test_the_configuration_can_be_looked_at_without_a_run(cli: Cli, tmp_path: Path) -> None:
    ended = cli("--cfg", "job", "classifier=prior", f"paths.root={tmp_path / 'root'}")
    assert ended.status == 0
    assert ended.stderr == ""
    assert "sklearn.dummy.DummyClassifier" in ended.stdout
    assert list(tmp_path.iterdir()) == []
