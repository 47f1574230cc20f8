"""Comparing, tuning and choosing a classifier."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from batch_nlp import run as program
from batch_nlp.artifact import Registry
from batch_nlp.errors import InputError
from batch_nlp.schemas import LABELS
from batch_nlp.training import classifiers, selection
from batch_nlp.training.classifiers import TARGETS, best_classifier, write_best
from batch_nlp.training.selection import LEADERBOARD, SelectionJob
from batch_nlp.transformers import OutOfFoldScores

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]

CHEAP = (
    "pipeline=selection",
    "selection.cv=3",
    "selection.flaml_seconds=null",
    *(f"selection.candidates.{name}=null" for name in ("random_forest", "xgboost", "lightgbm")),
    "selection.grid.logistic.C=[0.003,0.1,1.0]",
    "training.model.calibration.cv=2",
    "training.model.calibration.decision=argmax",
    "training.model.learn.text.cv=2",
    "training.model.learn.text.estimator.vocabulary.max_features=500",
)
N_FITS = 2 * 3 + 2 * 3
"""Two candidates and the two settings of the grid that are none of theirs, in three folds."""


def leaderboard(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "data" / "08_reporting" / "selection_leaderboard.parquet")


def best(root: Path) -> dict[str, Any]:
    path = root / "data" / "06_models" / "best.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


@pytest.fixture
def select(cli: Cli, fast: tuple[str, ...], root: Path) -> Callable[..., Any]:
    """Run a quick ``pipeline=selection`` in `root`."""

    def run(*overrides: str, status: int = 0) -> Any:
        ended = cli(*fast, *CHEAP, f"paths.root={root}", *overrides)
        assert ended.status == status, ended.stderr
        return ended

    return run


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The folds in which something is fitted from now on."""
    done: list[int] = []
    scored = selection._Bench._scored

    def counted(bench: Any, node: Any, fold: int) -> Any:
        done.append(fold)
        return scored(bench, node, fold)

    monkeypatch.setattr(selection._Bench, "_scored", counted)
    return done


@pytest.fixture(scope="module")
def selected(
    cli: Cli, fast: tuple[str, ...], trained_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Root in which a selection ended; read only."""
    root = Path(shutil.copytree(trained_root, tmp_path_factory.mktemp("selected") / "root"))
    ended = cli(*fast, *CHEAP, f"paths.root={root}")
    assert ended.status == 0, ended.stderr
    return root


# What comes out


def test_the_leaderboard_ranks_what_was_tried(selected: Path) -> None:
    schema = pq.read_schema(
        selected / "data" / "08_reporting" / "selection_leaderboard.parquet"
    ).remove_metadata()
    assert schema.equals(LEADERBOARD)
    board = leaderboard(selected)
    assert board["rank"].tolist() == list(range(1, 6))
    assert board["f1_weighted"].is_monotonic_decreasing
    assert sorted(set(board["candidate"])) == ["logistic", "prior"]
    tried = [json.loads(each) for each in board["parameters"]]
    assert sorted(each["C"] for each in tried if each) == [0.003, 0.1, 1.0]
    assert board["f1_weighted"].between(0, 1).all()
    assert (board["f1_macro"] <= board["f1_weighted"] + 0.2).all()
    page = (selected / "data" / "08_reporting" / "selection_leaderboard.md").read_text("utf-8")
    assert len([line for line in page.splitlines() if line.startswith("| ")]) == 6
    assert f"{board['f1_weighted'][0]:.3f} ± {board['f1_weighted_std'][0]:.3f}" in page
    assert board["precision_neutral"].between(0, 1).all()
    assert f"{board['recall_neutral'][0]:.3f} ± {board['recall_neutral_std'][0]:.3f}" in page


def test_the_best_is_written_down(selected: Path, last_run: LastRun) -> None:
    chosen, first = best(selected), leaderboard(selected).iloc[0]
    assert chosen["name"] == first["candidate"] == "logistic"
    assert chosen["f1_weighted"] == pytest.approx(first["f1_weighted"], abs=1e-6)
    tuned = json.loads(first["parameters"])
    assert tuned.items() <= chosen["parameters"].items()
    record = last_run(selected)
    assert chosen["run_id"] == record["run_id"]
    assert record["selection"]["parameters"] == chosen["parameters"]
    split = pd.read_parquet(selected / "data" / "05_model_input" / "split.parquet")["split"]
    assert record["stages"]["selection/compare"]["read"] == (split == "train").sum()
    left = {path.suffix for path in (selected / "data" / "06_models" / "selection").rglob("*.*")}
    assert left == {".json"}


def test_neutral_is_the_middle_class(
    select: Callable[..., Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_class = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]])
    monkeypatch.setattr(
        selection,
        "class_scores",
        lambda _, __, average: by_class if average is None else by_class[:, 0],
    )
    select()
    board = leaderboard(root)
    assert board["precision_neutral"].to_numpy() == pytest.approx(0.2)
    assert board["recall_neutral"].to_numpy() == pytest.approx(0.5)
    assert board["f1_macro"].to_numpy() == pytest.approx(0.7)


def test_the_prior_scores_what_it_must(selected: Path) -> None:
    prior = leaderboard(selected).query("candidate == 'prior'").iloc[0]
    split = pd.read_parquet(selected / "data" / "05_model_input" / "split.parquet")
    shares = split.loc[split["split"] == "train", "target"].value_counts(normalize=True)
    # The most frequent class for every row: its F1 is 2p / (1 + p).
    top = shares.max()
    assert prior["f1_macro"] == pytest.approx(2 * top / (1 + top) / 3, abs=0.01)
    assert prior["f1_weighted"] == pytest.approx(top * 2 * top / (1 + top), abs=0.01)
    assert shares.idxmax() != LABELS.index("neutral")
    assert prior["precision_neutral"] == prior["recall_neutral"] == 0


# What it may not see


def test_the_rows_held_out_are_never_seen(
    select: Callable[..., Any], root: Path, selected: Path, fits: list[int]
) -> None:
    store = root / "data" / "04_feature"
    path = store / json.loads((store / "manifest.json").read_text(encoding="utf-8"))["snapshot"]
    split = pd.read_parquet(root / "data" / "05_model_input" / "split.parquet").set_index("id")
    rows = pd.read_parquet(path)
    held_out = rows["id"].map(split["split"]) == "test"
    rows.loc[held_out, "stars"] = 6 - rows.loc[held_out, "stars"]
    schema = pq.read_schema(path)
    rows.to_parquet(path, schema=schema)
    select()
    assert len(fits) == N_FITS
    compared = ["candidate", "parameters", "f1_weighted", "f1_macro"]
    pd.testing.assert_frame_equal(leaderboard(root)[compared], leaderboard(selected)[compared])


def test_the_folds_learn_the_stars_as_training_does(
    select: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    fit = OutOfFoldScores.fit

    def noted(step: Any, X: pd.DataFrame, y: Any = None, grades: Any = None) -> Any:
        seen.append(len(np.unique(y if grades is None else grades)))
        return fit(step, X, y, grades)

    monkeypatch.setattr(OutOfFoldScores, "fit", noted)
    select()
    assert len(seen) >= 3
    assert min(seen) > 3


def test_a_text_is_in_one_fold_alone() -> None:
    job = SelectionJob(candidates={}, cv=3)
    texts = pd.Series([f"text {i // 2}" for i in range(90)])
    target = np.arange(90) // 2 % 3
    parts = job._parts(texts, target)
    assert np.sum(parts, axis=0).tolist() == [1] * 90
    for part in parts:
        assert not set(texts[part]) & set(texts[~part])
        assert np.bincount(target[part]).tolist() == [10, 10, 10]


# Interruption


def test_an_interrupted_selection_goes_on_where_it_was(
    select: Callable[..., Any],
    root: Path,
    selected: Path,
    fits: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = selection._Bench._scored

    def interrupted(bench: Any, node: Any, fold: int) -> Any:
        if len(fits) == 7:
            raise KeyboardInterrupt
        return counted(bench, node, fold)

    with monkeypatch.context() as patch:
        patch.setattr(selection._Bench, "_scored", interrupted)
        select(status=130)
    assert len(fits) == 7
    assert not (root / "data" / "06_models" / "best.yaml").exists()
    select()
    assert len(fits) == N_FITS
    without_time = leaderboard(root).drop(columns="seconds")
    pd.testing.assert_frame_equal(without_time, leaderboard(selected).drop(columns="seconds"))
    assert best(root)["parameters"] == best(selected)["parameters"]


def test_what_is_kept_is_not_made_again_unless_something_has_changed(
    select: Callable[..., Any], root: Path, fits: list[int]
) -> None:
    select()
    first = leaderboard(root)
    select()
    assert len(fits) == N_FITS
    pd.testing.assert_frame_equal(leaderboard(root), first)
    select("selection.grid.logistic.C=[0.1,1.0,3.0]")
    assert len(fits) == N_FITS + 3
    select("training.model.learn.levels=null")
    assert len(fits) == N_FITS + 3 + N_FITS
    assert len(list((root / "data" / "06_models" / "selection").iterdir())) == 1


# The choice in use


def test_training_takes_the_choice_and_a_retraining_keeps_its_own(
    cli: Cli, fast: tuple[str, ...], root: Path
) -> None:
    path = root / "data" / "06_models" / "best.yaml"
    common = (*fast, "training.gate.max_drop=null", f"paths.root={root}")
    ended = cli(*common, "pipeline=training", "classifier=best")
    assert ended.status == 2
    assert "run pipeline=selection first" in ended.stderr
    write_best(path, "logistic", {"C": 0.25, "max_iter": 900})
    ended = cli(*common, "pipeline=training", "classifier=best")
    assert ended.status == 0, ended.stderr
    first = Registry(root / "models", "sentiment").load()
    assert first.card["classifier"] == "LogisticRegression"
    assert (first.card["parameters"]["C"], first.card["parameters"]["max_iter"]) == (0.25, 900)

    write_best(path, "prior", {})
    skewed = ("pipeline=inference", "pipeline.on_skew=retrain", "inference.shares.low=0.4")
    ended = cli(*common, *skewed, "classifier=best")
    assert ended.status == 3, ended.stderr
    second = Registry(root / "models", "sentiment").load()
    assert second.card["retrained_from"] == first.version
    assert second.card["parameters"] == first.card["parameters"]


def test_another_choice_is_not_the_training_that_an_interrupted_run_finished(
    cli: Cli, fast: tuple[str, ...], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> None:
        raise InputError("after the training")

    monkeypatch.setattr(program._Run, "inference", fails)
    path = root / "data" / "06_models" / "best.yaml"
    again = (*fast, "training.gate.max_drop=null", f"paths.root={root}", "classifier=best")
    trained = []
    for c in (0.25, 0.25, 0.5):
        write_best(path, "logistic", {"C": c})
        ended = cli(*again, "pipeline=full")
        assert "after the training" in ended.stderr
        card = Registry(root / "models", "sentiment").load().card
        trained.append((card["parameters"]["C"], card["version"]))
    assert [c for c, _ in trained] == [0.25, 0.25, 0.5]
    assert trained[0] == trained[1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("name: [", "run pipeline=selection again"),
        ("7", "must hold a name and parameters"),
        ("name: svm\nparameters: {}", "name must be one of prior, logistic, .*; got 'svm'"),
        ("name: sklearn.svm.SVC\nparameters: {}", "name must be one of"),
        ("name: logistic", "parameters must be a mapping; got None"),
        ("name: logistic\nparameters: {c: 1}", "parameters.c is unknown"),
        ("name: xgboost\nparameters: {max_depth: deep}", "parameters.max_depth: input should be"),
        ("name: logistic\nparameters: {_target_: os.system}", "parameters._target_ must be"),
        ("name: logistic\nparameters: {C: {_target_: os.getcwd}}", "parameters.C must be"),
        ("name: logistic\nparameters: {solver: '${oc.env:HOME}'}", "parameters.solver must be"),
        ("name: logistic\nparameters: !!python/name:os.system ''", "run pipeline=selection again"),
    ],
)
def test_a_choice_is_data_and_nothing_else(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=reason) as caught:
        best_classifier(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_choice_is_read_as_it_was_written(tmp_path: Path) -> None:
    parameters = {"C": 1e-05, "max_iter": 100, "class_weight": None, "solver": "newton-cg"}
    write_best(tmp_path / "best.yaml", "logistic", parameters, f1_weighted=0.5)
    built = best_classifier(str(tmp_path / "best.yaml"))
    assert isinstance(built, LogisticRegression)
    assert parameters.items() <= built.get_params().items()


# Mistakes and what is not installed


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("selection.search=optna", "selection.search: input should be 'grid' or 'optuna'"),
        ("selection.cv=1", "selection.cv must be at least 2, got 1"),
        ("selection.n_trials=0", "selection.n_trials must be at least 1, got 0"),
        ("selection.flaml_seconds=0", "selection.flaml_seconds must be above 0 or null"),
        ("+selection.grid.svm={C:[1]}", "selection.grid must name candidates out of"),
        ("selection.candidates.prior._target_=sklearn.svm.SVC", "selection.candidates"),
        ("+selection.grid.logistic.c=[2]", "selection.grid.logistic.c is unknown"),
        ("selection.candidates.logistic.C=-1", "classifier cannot be fitted to these rows"),
        ("selection.cv=400", "needs as many different texts of each class"),
        ("selection.grid.logistic.C=[-1]", "classifier cannot be fitted to these rows"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    select: Callable[..., Any], root: Path, override: str, complaint: str
) -> None:
    assert complaint in select(override, status=2).stderr.splitlines()[-1]
    assert not (root / "data" / "06_models" / "best.yaml").exists()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No extra is installed."""
    for module in (classifiers, selection):
        monkeypatch.setattr(module, "missing", lambda name: f"not installed: {name}")


def test_optuna_is_asked_for_before_anything_is_read(
    bare: None, select: Callable[..., Any], fits: list[int]
) -> None:
    ended = select("selection.search=optuna", status=2)
    assert "selection.search=optuna: Optuna is not installed: optuna" in ended.stderr
    assert fits == []


def test_what_is_not_installed_has_a_line_of_its_own(
    bare: None, cli: Cli, fast: tuple[str, ...], root: Path
) -> None:
    kept = [each for each in CHEAP if "lightgbm" not in each and "flaml" not in each]
    ended = cli(*fast, *kept, "selection.grid.logistic=null", f"paths.root={root}")
    assert ended.status == 0, ended.stderr
    board = leaderboard(root)
    assert board["candidate"].tolist() == ["logistic", "prior", "lightgbm", "flaml"]
    assert board["note"].tolist()[2:] == ["not installed: lightgbm", "not installed: flaml"]
    assert board["rank"].isna().tolist() == [False, False, True, True]
    with pytest.raises(InputError, match="LightGBM is not installed"):
        classifiers.lightgbm()


def test_nothing_to_compare(bare: None, select: Callable[..., Any]) -> None:
    none = [f"selection.candidates.{name}=null" for name in ("prior", "logistic")]
    assert "must name one that is installed" in select(*none, status=2).stderr


# Extras


def test_lightgbm_is_the_same_for_a_seed() -> None:
    pytest.importorskip("lightgbm")
    X = np.random.default_rng(0).normal(size=(90, 4))
    options: dict[str, Any] = {"n_estimators": 5, "subsample": 0.5, "subsample_freq": 1}
    first, second, other = (
        classifiers.lightgbm(**options, random_state=seed).fit(X, np.arange(90) % 3)
        for seed in (1, 1, 2)
    )
    assert (first.predict_proba(X) == second.predict_proba(X)).all()
    assert (first.predict_proba(X) != other.predict_proba(X)).any()


def test_optuna_goes_on_where_it_was(
    select: Callable[..., Any], root: Path, fits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    options = ("selection.search=optuna", "selection.n_trials=4")
    counted = selection._Bench._scored

    def interrupted(bench: Any, node: Any, fold: int) -> Any:
        if len(fits) == 11:
            raise KeyboardInterrupt
        return counted(bench, node, fold)

    with monkeypatch.context() as patch:
        patch.setattr(selection._Bench, "_scored", interrupted)
        select(*options, status=130)
    select(*options)
    assert len(fits) == 2 * 3 + 4 * 3
    resumed = leaderboard(root).drop(columns="seconds")
    values = [json.loads(each).get("C") for each in resumed["parameters"]]
    assert all(0.01 <= value <= 1 for value in values if value is not None)
    assert len(set(values)) == 5

    shutil.rmtree(root / "data" / "06_models" / "selection")
    select(*options)
    pd.testing.assert_frame_equal(leaderboard(root).drop(columns="seconds"), resumed)


def test_flaml_finds_one_of_ours(select: Callable[..., Any], root: Path) -> None:
    pytest.importorskip("flaml")
    none = [f"selection.candidates.{name}=null" for name in ("prior", "logistic")]
    select(*none, "selection.flaml_seconds=1", "selection.cv=2")
    board = leaderboard(root)
    assert board["candidate"].tolist() == ["flaml"]
    chosen = best(root)
    assert chosen["name"] in TARGETS
    assert best_classifier(str(root / "data" / "06_models" / "best.yaml")) is not None
