"""Results as Markdown, Parquet and pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from benchmarks.machine import machine
from benchmarks.quality.measure import LABELS, error_of_bins
from benchmarks.quality.rivals import BASELINE

SPLIT = ["group", "split", "seed"]
KEY = "rival"

COLUMNS = {
    "f1_weighted": "F1 weighted",
    "f1_macro": "F1 macro",
    "f1_negative": "F1 negative",
    "f1_neutral": "F1 neutral",
    "f1_positive": "F1 positive",
    "precision_neutral": "neutral precision",
    "recall_neutral": "neutral recall",
    "neutral_excess": "neutral predicted less true, points",
    "share_gap": "largest gap of a share, points",
    "chance_gap": "expected if its probabilities were true, points",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
    "chance_error": "of it by chance",
    "fit_seconds": "fit, s",
    "rows_per_second": "rows/s",
    "peak_mib": "MiB",
}
FEWEST_IN_BIN = 20
"""Rows of a bin that is drawn in the reliability diagram."""

POINTS = ("neutral_excess", "share_gap", "chance_gap")


def frame_of(results: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Give a row for each result, with its differences from the baseline on the same split."""
    rows = pd.DataFrame([{k: v for k, v in each.items() if k != "versions"} for each in results])
    baseline = rows[rows[KEY] == BASELINE].set_index(SPLIT)
    for name in ("f1_weighted", "f1_macro"):
        at = pd.MultiIndex.from_frame(rows[SPLIT])
        rows[f"{name}_gain"] = rows[name].to_numpy() - baseline[name].reindex(at).to_numpy()
    return rows


def number(values: pd.Series, name: str) -> str:
    """Write the mean of a measure and its spread over splits."""
    mean = values.mean()
    if name in POINTS:
        return f"{100 * mean:+.1f}" if name == "neutral_excess" else f"{100 * mean:.1f}"
    if name == "rows_per_second":
        return f"{mean:,.0f}"
    if name in {"fit_seconds", "peak_mib"}:
        return f"{mean:,.1f}" if mean < 10 else f"{mean:,.0f}"
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 and name.startswith("f1_") else ""
    return f"{mean:.3f}{spread}"


def gain(values: pd.Series) -> str:
    """Write the mean difference from the baseline, and the lowest one where there are several."""
    values = values.dropna()
    if values.empty:
        return "-"
    lowest = f" (≥ {values.min():+.3f})" if len(values) > 1 else ""
    return f"{values.mean():+.3f}{lowest}"


def table(rows: pd.DataFrame) -> list[str]:
    """Give the lines of a Markdown table of the rivals, the highest F1 macro gain first."""
    heads = ["rival", "splits", "weighted vs. baseline", "macro vs. baseline", *COLUMNS.values()]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    ranked = rows.groupby(KEY)[["f1_macro_gain", "f1_macro"]].mean()
    for name in ranked.sort_values(["f1_macro_gain", "f1_macro"], ascending=False).index:
        own = rows[rows[KEY] == name]
        cells = [
            f"**{name}**" if name.startswith("ours") else str(name),
            str(len(own)),
            gain(own["f1_weighted_gain"]),
            gain(own["f1_macro_gain"]),
            *(number(own[column], column) for column in COLUMNS),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def pooled(rows: pd.DataFrame) -> list[str]:
    """Give a table of calibration and shares over all folds, where each row is held out once.

    A rival is in it where it met every fold of a seed; means over such seeds. No lines where
    there are no folds, or no such rival.
    """
    told = re.search(r"(\d+) folds$", str(rows["group"].iloc[0]))
    if told is None:
        return []
    n_folds = int(told[1])
    found = []
    for (rival, _), own in rows.groupby([KEY, "seed"], sort=False):
        if len(own) == n_folds and own["bins"].notna().all():
            error, chance = error_of_bins(np.sum([np.array(each) for each in own["bins"]], axis=0))
            shares = np.sum(own["predicted_rows"].tolist(), axis=0) - np.sum(
                own["true_rows"].tolist(), axis=0
            )
            found.append([rival, error, chance, *(100 * shares / own["n_test"].sum())])
    if not found:
        return []
    heads = ["rival", "error", "chance", *LABELS]
    whole = pd.DataFrame(found, columns=heads)
    shuffles = whole["rival"].value_counts()
    means = whole.groupby("rival", sort=False).mean()
    lines = [
        "| rival | shuffles | calibration error | of it by chance "
        "| predicted less true share, points: " + " | ".join(LABELS) + " |",
        "|---" * 7 + "|",
    ]
    for rival, (error, chance, *shares) in means.sort_values("error").iterrows():
        cells = [
            rival,
            shuffles[rival],
            f"{error:.3f}",
            f"{chance:.3f}",
            *(f"{each:+.1f}" for each in shares),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def libraries(results: Sequence[dict[str, Any]]) -> str:
    """Name the versions, those of an environment of its own with the rival."""
    common = max((each["versions"] for each in results), key=len)
    told = [", ".join(f"{name} {version}" for name, version in common.items())]
    for rival in sorted({each[KEY] for each in results}):
        own = next(each["versions"] for each in results if each[KEY] == rival)
        other = [
            f"{name} {version}" for name, version in own.items() if common.get(name) != version
        ]
        if other:
            told.append(f"{rival}: {', '.join(other)}")
    return "; ".join(told)


def markdown(
    results: Sequence[dict[str, Any]], missing: Sequence[tuple[str, str, str]], *, settings: str
) -> str:
    """Give the whole report.

    Parameters
    ----------
    results : sequence of dict
        As `Bench.run` gives them.
    missing : sequence of (rival, group, reason)
        What was to run and has no result.
    settings : str
        How the contest was run.
    """
    rows = frame_of(results)
    lines = [
        "# The contest",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine()}; {settings}. {libraries(results)}.",
        "",
        f"A gain is the difference from **{BASELINE}** on the very same split: the mean, and in",
        "brackets the lowest of a single split. Measures are means over splits, F1 with its",
        "standard deviation. Features and embeddings are counted into the seconds and the rows",
        "per second; loading a model is not. Memory is the peak of the rival's own process.",
        "The gap of a share is the predicted one less the true one, of the class where it is",
        "largest, and beside it what it would be on so many rows if every probability were the",
        "true one: chance, and what the rule itself shifts. The calibration error has 15 bins of",
        "the most probable class; by chance is what it would be likewise. Points are percentage",
        "points.",
        "Rows with fewer splits are to be compared by their gains alone.",
    ]
    texts = rows[rows["real"] & ~rows["group"].str.startswith("feature table")]
    if texts["group"].nunique() > 1:
        lines += ["", "## All splits of real texts", "", *table(texts)]
    for group in rows["group"].unique():
        own = rows[rows["group"] == group]
        sizes = f"{own['n_train'].iloc[0]:,} training and {own['n_test'].iloc[0]:,} test rows"
        note = "" if own["real"].all() else "; for reference only"
        lines += ["", f"## {group}", "", f"{sizes}{note}.", "", *table(own)]
        if own["real"].all() and (together := pooled(own)):
            lines += ["", "All held-out rows of a shuffle taken together:", "", *together]
    if missing:
        lines += ["", "## Not run", "", "| rival | data | reason |", "|---|---|---|"]
        told = pd.DataFrame(missing, columns=["rival", "group", "reason"])
        for (rival, reason), own in told.groupby(["rival", "reason"], sort=False):
            splits = own["group"].value_counts(sort=False)
            where = ", ".join(
                f"{group}: {n} split{'s' if n > 1 else ''}" for group, n in splits.items()
            )
            lines.append(f"| {rival} | {where} | {str(reason).replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def empty_figure() -> Any:
    """Give a matplotlib figure for two panels side by side."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(12, 6), layout="constrained")


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def picture(rows: pd.DataFrame, title: str, path: Path) -> None:
    """Draw the gain in F1 macro and weighted against the speed of scoring."""
    measures = ["rows_per_second", "f1_macro_gain", "f1_weighted_gain"]
    points = rows.groupby(KEY)[measures].mean().dropna()
    points = points.sort_values("f1_macro_gain", ascending=False)
    figure = empty_figure()
    left, right = figure.subplots(1, 2, sharex=True)
    for axes, name, what in (
        (left, "f1_macro_gain", "F1 macro"),
        (right, "f1_weighted_gain", "F1 weighted"),
    ):
        for place, (rival, point) in enumerate(points.iterrows(), start=1):
            own = str(rival).startswith("ours")
            axes.scatter(
                point["rows_per_second"], point[name], s=60 if own else 35,
                color="tab:orange" if own else "tab:blue", label=f"{place}  {rival}",
            )  # fmt: skip
            axes.annotate(
                str(place), (point["rows_per_second"], point[name]), fontsize=8,
                textcoords="offset points", xytext=(5, 4),
            )  # fmt: skip
        axes.axhline(0, color="grey", linewidth=0.8)
        # Far below the rest, the majority class would press the others together.
        floor = max(points[name].min(), -0.2) - 0.02
        axes.set_ylim(floor, max(points[name].max(), 0) + 0.02)
        axes.set_xscale("log")
        axes.set_xlabel("messages scored per second")
        axes.set_ylabel(f"{what}, difference from {BASELINE}")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=7, frameon=False)
    save(figure, path)


def reliability(rows: pd.DataFrame, path: Path) -> None:
    """Draw how often the most probable class is right against its probability.

    Of the light rivals, which met all splits, and of the best of ours, all rows that each was
    held against.
    """
    figure = empty_figure()
    drawn = (rows["weight"] == "light") | (rows[KEY] == "ours: experiment=best")
    rows = rows[drawn]
    crossing = rows["group"].str.contains("→")
    panels = [("held out within a set", ~crossing), ("learned from another set", crossing)]
    panels = [(title, chosen) for title, chosen in panels if chosen.any()]
    for axes, (title, chosen) in zip(
        np.ravel(figure.subplots(1, len(panels), squeeze=False)), panels, strict=True
    ):
        axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
        for rival, met in rows[chosen].groupby(KEY, sort=False):
            n, probability, right, _ = np.sum([np.array(each) for each in met["bins"]], axis=0).T
            told = n >= FEWEST_IN_BIN
            wide = str(rival).startswith("ours")
            axes.plot(
                probability[told] / n[told], right[told] / n[told], marker="o", markersize=3,
                linewidth=3 if wide else 1, zorder=3 if wide else 2, label=str(rival),
            )  # fmt: skip
        axes.set_xlim(1 / len(LABELS), 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("probability of the most probable class")
        axes.set_ylabel("how often it is right")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7, frameon=False)
    save(figure, path)


def file_name(group: str) -> str:
    """Give a group's name as part of a file's name."""
    plain = "".join(each if each.isalnum() and each.isascii() else "_" for each in group.lower())
    return "_".join(part for part in plain.split("_") if part)


def write(
    results: Sequence[dict[str, Any]],
    missing: Sequence[tuple[str, str, str]],
    folder: Path,
    *,
    settings: str,
) -> str:
    """Write ``quality.md``, ``quality.parquet`` and the pictures; give the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    told = markdown(results, missing, settings=settings)
    (folder / "quality.md").write_text(told, encoding="utf-8")
    rows = frame_of(results)
    rows.assign(measured=datetime.now(UTC).date()).to_parquet(folder / "quality.parquet")
    for old in folder.glob("accuracy_speed*.png"):
        old.unlink()
    gains = rows[np.isfinite(rows["f1_macro_gain"]) & rows["real"]]
    if len(gains):
        picture(gains, "All splits of real texts", folder / "accuracy_speed.png")
        reliability(gains, folder / "reliability.png")
    for group, own in gains.groupby("group"):
        picture(own, str(group), folder / f"accuracy_speed_{file_name(str(group))}.png")
    return told
