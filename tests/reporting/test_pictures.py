"""Pictures: what is on them, and that nothing is cut off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from batch_nlp.reporting import pictures
from batch_nlp.reporting.pictures import (
    confusion_matrix_png,
    feature_importance_png,
    feature_importances,
    reliability_png,
    shap_importance_png,
)
from batch_nlp.training.calibrate import CalibratedClassifier
from batch_nlp.training.evaluate import evaluate

EVALUATION = evaluate([0] * 1200 + [2] * 300, np.eye(3)[[0] * 900 + [1] * 300 + [2] * 300])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of each figure that is saved."""
    texts: list[str] = []
    save = pictures._save

    def noting(figure: Figure, path: Path) -> None:
        save(figure, path)
        texts.extend(text.get_text() for text in figure.findobj(Text))

    monkeypatch.setattr(pictures, "_save", noting)
    return texts


def assert_nothing_is_cut_off(path: Path) -> None:
    pixels = imread(path)[..., :3]
    assert pixels.min() < 0.5
    border = [pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:]]
    assert all((side == 1).all() for side in border)


def series(*names: str) -> pd.Series:
    values = np.arange(len(names), 0, -1, dtype="float64")
    return pd.Series(values / values.sum(), index=pd.Index(names, dtype="str"))


def test_confusion_matrix(tmp_path: Path, drawn: list[str]) -> None:
    path = tmp_path / "new" / "confusion_matrix.png"
    confusion_matrix_png(EVALUATION, path)
    assert_nothing_is_cut_off(path)
    for text in (
        "900\n75.0%",
        "300\n25.0%",
        "300\n100.0%",
        "0\n0.0%",
        "negative\n(n = 1,200)",
        "neutral\n(n = 0)",
        "positive",
        f"1,500 rows · F1 macro {EVALUATION.f1_macro:.3f}",
    ):
        assert text in drawn
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("sure", [False, True])
def test_reliability(tmp_path: Path, drawn: list[str], sure: bool) -> None:
    path = tmp_path / "new" / "reliability.png"
    unsure = np.tile([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], (600, 1))
    evaluation = EVALUATION if sure else evaluate([0, 1, 0, 2] * 300, unsure)
    reliability_png(evaluation, path)
    assert_nothing_is_cut_off(path)
    error = f"expected calibration error {evaluation.expected_calibration_error:.3f}"
    assert f"{evaluation.n_rows:,} rows · {error}" in drawn
    assert (
        [text for text in drawn if text in {"1,500", "600"}] == ["1,500"] if sure else ["600"] * 2
    )
    assert {"calibrated", "model"} <= set(drawn)


def test_the_same_picture_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        confusion_matrix_png(EVALUATION, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_feature_importance_keeps_the_top(tmp_path: Path, drawn: list[str]) -> None:
    path = tmp_path / "importance.png"
    feature_importance_png(series("first", "second", "third"), path, top=2)
    assert_nothing_is_cut_off(path)
    assert {"first", "second", "50.0%", "33.3%"} <= set(drawn)
    assert "third" not in drawn
    assert "Most important features (2 of 3, 83% of all importance)" in drawn


def test_names_that_are_hard_to_draw(tmp_path: Path, drawn: list[str]) -> None:
    path = tmp_path / "importance.png"
    feature_importance_png(series("x" * 300, "$5 off $10_", "línea", "漢", "a\nb", "100%"), path)
    assert_nothing_is_cut_off(path)
    assert {"$5 off $10_", "línea", "\\u6f22", "a\\nb", "100%"} <= set(drawn)
    assert max(map(len, (text for text in drawn if "xx" in text))) == 44
    assert any("x…x" in text for text in drawn)


@pytest.mark.parametrize("importances", [series(), series("one"), series("one", "two") * 0])
def test_little_to_draw(tmp_path: Path, importances: pd.Series) -> None:
    path = tmp_path / "importance.png"
    feature_importance_png(importances, path)
    assert_nothing_is_cut_off(path)


def test_no_importances_is_said(tmp_path: Path, drawn: list[str]) -> None:
    feature_importance_png(series(), tmp_path / "importance.png")
    assert "This classifier has no feature importances" in drawn


def test_pyplot_stays_out(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from batch_nlp.reporting.pictures import confusion_matrix_png
from batch_nlp.training.evaluate import evaluate
confusion_matrix_png(evaluate([0], [[1, 0, 0]]), Path(sys.argv[1]))
assert "matplotlib.pyplot" not in sys.modules
assert "xgboost" not in sys.modules
"""
    path = tmp_path / "confusion_matrix.png"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)
    assert path.exists()


@pytest.fixture
def training_frame() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    X = pd.DataFrame({"noise": rng.normal(size=240), "constant": 1.0, "signal": y + 0.0})
    return X, y


@pytest.mark.parametrize("classifier", ["xgboost", "forest", "logistic"])
def test_importances_find_the_signal(
    classifier: str, training_frame: tuple[pd.DataFrame, np.ndarray]
) -> None:
    if classifier == "xgboost":
        from xgboost import XGBClassifier

        last = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1)
    elif classifier == "forest":
        last = RandomForestClassifier(n_estimators=10, random_state=0)
    else:
        last = LogisticRegression()
    model = Pipeline([("scale", StandardScaler()), ("classify", last)]).fit(*training_frame)
    importances = feature_importances(model)
    assert importances.index[0] == "signal"
    assert sorted(importances.index) == ["constant", "noise", "signal"]
    assert importances.is_monotonic_decreasing
    assert importances.sum() == pytest.approx(1)
    assert importances["constant"] == 0


def test_importances_are_those_of_the_classifier_that_is_calibrated(
    training_frame: tuple[pd.DataFrame, np.ndarray],
) -> None:
    forest = RandomForestClassifier(n_estimators=10, random_state=0)
    bare, calibrated = (
        Pipeline([("scale", StandardScaler()), ("classify", last)]).fit(*training_frame)
        for last in (forest, CalibratedClassifier(estimator=forest))
    )
    assert feature_importances(calibrated).equals(feature_importances(bare))
    assert not feature_importances(bare).empty


def test_linear_importances_are_mean_sizes_over_classes(
    training_frame: tuple[pd.DataFrame, np.ndarray],
) -> None:
    model = Pipeline([("scale", StandardScaler()), ("classify", LogisticRegression())])
    sizes = np.abs(model.fit(*training_frame)[-1].coef_).mean(axis=0)
    importances = feature_importances(model)[["noise", "constant", "signal"]]
    assert importances.to_numpy() == pytest.approx(sizes / sizes.sum())


def test_all_zero_importances_stay_zero(training_frame: tuple[pd.DataFrame, np.ndarray]) -> None:
    X, y = training_frame
    model = Pipeline([("scale", StandardScaler()), ("classify", RandomForestClassifier())])
    importances = feature_importances(model.fit(X * 0, y))
    assert importances.to_dict() == {"noise": 0, "constant": 0, "signal": 0}


def test_a_classifier_without_importances_gives_none(
    training_frame: tuple[pd.DataFrame, np.ndarray],
) -> None:
    model = Pipeline([("scale", StandardScaler()), ("classify", DummyClassifier())])
    importances = feature_importances(model.fit(*training_frame))
    assert importances.empty
    assert importances.dtype == "float64"


def test_contributions_by_class(tmp_path: Path, drawn: list[str]) -> None:
    names = [f"feature {number} costs $5" for number in range(30)]
    importances = pd.DataFrame(
        {
            "feature": np.repeat(names, 3),
            "class": [0, 1, 2] * 30,
            "importance": np.arange(90, 0, -1) / 10,
        }
    )
    shap_importance_png(importances, tmp_path / "shap.png")
    assert_nothing_is_cut_off(tmp_path / "shap.png")
    assert "How far features move the log odds (25 of 30)" in drawn
    assert {"negative", "neutral", "positive"} <= set(drawn)
    shown = dict.fromkeys(text for text in drawn if text.startswith("feature"))
    assert list(shown) == names[:25]


def test_contributions_that_nobody_knows(tmp_path: Path, drawn: list[str]) -> None:
    empty = pd.DataFrame({"feature": [], "class": [], "importance": []})
    shap_importance_png(empty, tmp_path / "shap.png")
    assert_nothing_is_cut_off(tmp_path / "shap.png")
    assert "This classifier's contributions are not known" in drawn
