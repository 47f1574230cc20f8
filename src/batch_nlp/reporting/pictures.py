"""Pictures of what a classifier does, for people to look at."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from batch_nlp.schemas import LABELS
from batch_nlp.tables import atomic_path
from batch_nlp.training.calibrate import inner_classifier
from batch_nlp.training.evaluate import BINS, Evaluation

_BLUE = "#0072B2"  # of Okabe and Ito's palette, which colour-blind readers tell apart
_CLASS_COLOURS = ("#D55E00", "#999999", _BLUE)  # negative, neutral, positive
_INK = "#1b1b1b"
_FONT = "DejaVu Sans"  # comes with matplotlib
_LONGEST_NAME = 44


def confusion_matrix_png(evaluation: Evaluation, path: Path) -> None:
    """Draw how many rows of each true class got each label, whole or not at all.

    Each cell has the count and its share of the row; the colour follows the share, so that a
    rare class is as easy to read as a frequent one.

    Parameters
    ----------
    evaluation : Evaluation
        What to draw.
    path : Path
        The PNG file; its folder is made if it is not there.
    """
    counts = np.asarray(evaluation.confusion_matrix)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)

    figure, axes = _figure(7.4, 5.6)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}\n{share:.1%}",
            ha="center",
            va="center",
            fontsize=12,
            color="white" if share > 0.68 else _INK,
        )
    positions = range(len(LABELS))
    axes.set_xticks(positions, labels=LABELS)
    axes.set_yticks(
        positions,
        labels=[f"{name}\n(n = {n:,})" for name, n in zip(LABELS, totals[:, 0], strict=True)],
    )
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{evaluation.n_rows:,} rows · F1 macro {evaluation.f1_macro:.3f}", fontsize=13)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, format="{x:.0%}")
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    _save(figure, path)


def reliability_png(evaluation: Evaluation, path: Path) -> None:
    """Draw how often the most probable class is right, by how probable it is, whole or not at all.

    Each bar is a bin of probabilities, as high as the share of its rows for which the most
    probable class is the true one. Calibrated probabilities end on the diagonal: a bar below
    it is a model too sure of itself. The numbers are the rows in each bin.

    Parameters
    ----------
    evaluation : Evaluation
        What to draw.
    path : Path
        The PNG file; its folder is made if it is not there.
    """
    bins = pd.DataFrame(evaluation.reliability)
    figure, axes = _figure(7.4, 5.6)
    bars = axes.bar(
        bins["above"], bins["accuracy"], width=0.94 / BINS, align="edge", color=_BLUE, alpha=0.75
    )
    axes.bar_label(
        bars, labels=[f"{rows:,.0f}" for rows in bins["rows"]], fontsize=8, padding=2, color=_INK
    )
    axes.plot([0, 1], [0, 1], color=_INK, linestyle="--", linewidth=1, label="calibrated")
    axes.plot(
        bins["confidence"], bins["accuracy"], color=_INK, marker="o", markersize=4, label="model"
    )
    # Of three classes the most probable one has at least a third.
    axes.set_xlim(1 / 3 - 0.02, 1.005)
    axes.set_ylim(0, 1.08)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("probability of the most probable class")
    axes.set_ylabel("share of rows where it is the true one")
    axes.legend(loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    error = evaluation.expected_calibration_error
    axes.set_title(
        f"{evaluation.n_rows:,} rows · expected calibration error {error:.3f}", fontsize=13
    )
    _save(figure, path)


def feature_importance_png(importances: pd.Series, path: Path, top: int = 25) -> None:
    """Draw the most important features as bars, whole or not at all.

    Parameters
    ----------
    importances : pandas.Series of float
        By feature, descending, as from `feature_importances`; with none the picture says so.
    path : Path
        The PNG file; its folder is made if it is not there.
    top : int, default=25
        Bars at most.
    """
    drawn = importances.iloc[:top]
    figure, axes = _figure(9, 1.2 + 0.28 * max(len(drawn), 3))
    axes.spines[:].set_visible(False)
    axes.xaxis.set_visible(False)
    if drawn.empty:
        title = "This classifier has no feature importances"
    else:
        counts = f"{len(drawn):,} of {len(importances):,}, {drawn.sum():.0%} of all importance"
        title = f"Most important features ({counts})"
    figure.suptitle(title, fontsize=13)
    positions = np.arange(len(drawn))
    bars = axes.barh(positions, drawn.to_numpy(), color=_BLUE, height=0.72)
    axes.bar_label(bars, fmt="{:.1%}", padding=4)
    # A token such as "$5" is text and not mathematics.
    names = [_drawable(str(name)) for name in drawn.index]
    axes.set_yticks(positions, labels=names, parse_math=False)
    axes.set_ylim(max(len(drawn), 1) - 0.4, -0.6)
    # Room for the longest bar's own number.
    axes.set_xlim(0, 1.1 * drawn.max() if drawn.any() else 1)
    axes.tick_params(length=0)
    _save(figure, path)


def shap_importance_png(importances: pd.DataFrame, path: Path, top: int = 25) -> None:
    """Draw how far features move the margins of the classes as bars, whole or not at all.

    Parameters
    ----------
    importances : pandas.DataFrame
        As from `batch_nlp.explain.contributions.importances`; with no row the picture says so.
    path : Path
        The PNG file; its folder is made if it is not there.
    top : int, default=25
        Features at most.
    """
    by_class = importances.pivot(index="feature", columns="class", values="importance")
    drawn = by_class.reindex(importances["feature"].unique()[:top])
    figure, axes = _figure(9, 1.6 + 0.28 * max(len(drawn), 3))
    axes.spines[:].set_visible(False)
    if drawn.empty:
        title = "This classifier's contributions are not known"
    else:
        title = f"How far features move the log odds ({len(drawn):,} of {len(by_class):,})"
    figure.suptitle(title, fontsize=13)
    axes.xaxis.set_visible(not drawn.empty)
    positions = np.arange(len(drawn))
    left = np.zeros(len(drawn))
    for number in sorted(importances["class"].unique()):
        values = drawn[number].to_numpy()
        axes.barh(
            positions,
            values,
            left=left,
            height=0.72,
            color=_CLASS_COLOURS[number],
            label=LABELS[number],
        )
        left = left + values
    names = [_drawable(str(name)) for name in drawn.index]
    axes.set_yticks(positions, labels=names, parse_math=False)
    axes.set_ylim(max(len(drawn), 1) - 0.4, -0.6)
    axes.set_xlabel("mean size of the contribution over held-out rows, the classes stacked")
    if not drawn.empty:
        axes.legend(loc="lower right", frameon=False)
    axes.tick_params(length=0)
    _save(figure, path)


def feature_importances(model_pipeline: Any) -> pd.Series:
    """Give how much each feature that reaches the classifier weighs.

    Parameters
    ----------
    model_pipeline : sklearn.pipeline.Pipeline
        Fitted; its last step is the classifier (or a `CalibratedClassifier` around it), and the
        steps before it name their output.

    Returns
    -------
    pandas.Series of float
        By feature name, descending, summing to 1 (or all 0, where no feature is used): the
        classifier's own importances, or for a linear one the mean size of its coefficients over
        the classes, which can be compared where the features are on one scale. Empty for a
        classifier that has neither.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import Pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X = pd.DataFrame({"noise": [0, 1, 0, 1, 0, 1], "signal": [0, 0, 1, 1, 2, 2]})
    >>> model = Pipeline([("scale", StandardScaler()), ("classify", LogisticRegression())])
    >>> list(feature_importances(model.fit(X, [0, 0, 1, 1, 2, 2])).index)
    ['signal', 'noise']
    """
    classifier = inner_classifier(model_pipeline)
    if hasattr(classifier, "feature_importances_"):
        values = np.asarray(classifier.feature_importances_, dtype="float64")
    elif hasattr(classifier, "coef_"):
        values = np.abs(np.atleast_2d(classifier.coef_)).mean(axis=0)
    else:
        return pd.Series(dtype="float64", index=pd.Index([], dtype="str"), name="importance")
    total = values.sum()
    shares = values / total if total > 0 else values
    names = [str(name) for name in model_pipeline[:-1].get_feature_names_out()]
    # A stable sort keeps features of equal weight in the pipeline's order.
    return pd.Series(shares, index=pd.Index(names, dtype="str"), name="importance").sort_values(
        ascending=False, kind="stable"
    )


def _drawable(name: str) -> str:
    """Shorten a name in its middle, and spell out characters that the font lacks."""
    if len(name) > _LONGEST_NAME:
        head = _LONGEST_NAME * 2 // 3
        name = f"{name[:head]}…{name[head + 1 - _LONGEST_NAME :]}"
    return "".join(
        letter
        if letter.isprintable() and ord(letter) in _known_letters()
        else letter.encode("unicode_escape").decode()
        for letter in name
    )


@cache
def _known_letters() -> frozenset[int]:
    return frozenset(get_font(findfont(_FONT)).get_charmap())


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Give a figure of this many inches that keeps all of its text inside."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15))
    return figure, figure.add_subplot()


def _save(figure: Figure, path: Path) -> None:
    # Without the program's version in it the same picture is the same bytes.
    with atomic_path(path) as beside:
        FigureCanvasAgg(figure).print_figure(
            beside, format="png", dpi=150, facecolor="white", metadata={"Software": None}
        )
