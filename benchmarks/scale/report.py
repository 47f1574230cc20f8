"""The measures of every size as a table in Markdown and Parquet, and a picture of cost by size."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from benchmarks.machine import machine
from matplotlib.figure import Figure

COMPARED = {
    "rows": "rows: bare DuckDB",
    "features": "features: scikit-learn on a frame",
    "embed": "embed: SentenceTransformer.encode",
    "store": "store: features and default embedding, new",
    "inference": "inference: all new",
}
"""What the others of a group are compared with, per row."""


SIZES = {"100k": 100_000, "1m": 1_000_000, "7m": 6_990_280}
HEADER = (
    "| what | rows | seconds | rows/s | times as fast | CPU s | peak GB | read GB | written GB |"
)


def line(measure: Mapping[str, Any]) -> str:
    """Say in a few words what was measured."""
    if "failed" in measure:
        return f"failed: {measure['failed']}"
    rate = measure["rows"] / measure["seconds"] if measure["seconds"] else 0.0
    return (
        f"{measure['seconds']:,.1f} s, {rate:,.0f} rows/s, CPU {measure['cpu']:,.1f} s, "
        f"peak {measure['peak'] / 1e9:.2f} GB"
    )


def table(measures: Mapping[str, Mapping[str, Any]], size: int) -> pd.DataFrame:
    """Give one line for each measure."""
    rows = []
    for name, measure in measures.items():
        own = {"reviews": size, "what": name, "date": measure["date"]}
        if "failed" in measure:
            rows.append(own | {"failed": measure["failed"]})
            continue
        base = measures.get(COMPARED.get(name.partition(":")[0], ""), {})
        ratio = None
        if base.get("rows") and measure["rows"]:
            ratio = (base["seconds"] / base["rows"]) / (measure["seconds"] / measure["rows"])
        rows.append(
            own
            | {
                "rows": measure["rows"],
                "seconds": measure["seconds"],
                "rows_per_second": measure["rows"] / measure["seconds"],
                "cpu_seconds": measure["cpu"],
                "peak_bytes": measure["peak"],
                "read_bytes": measure.get("read"),
                "written_bytes": measure.get("written"),
                "bytes": measure.get("bytes"),
                "times_as_fast": ratio,
                "compared_with": COMPARED[name.partition(":")[0]] if ratio else None,
                "failed": None,
            }
        )
    return pd.DataFrame(rows)


def markdown(frame: pd.DataFrame, stages: Mapping[str, Mapping[str, float]]) -> str:
    """Write the tables."""
    texts = [
        "# What many messages take",
        "",
        f"{machine()}, Python {platform.python_version()}. Synthetic reviews in Yelp's format, of",
        "570 characters on average. Times as fast: rows per second over those of the line of its",
        "group that says 1.00. Seconds of generating and of runs of the program contain the start",
        "of Python and of its processes; those of the other lines are without imports, what is",
        "prepared, and the end of processes, which are in their CPU seconds, peak and bytes. Texts",
        "come from the store in the order in which they were put there. The peak is the largest",
        "sum of proportional set sizes of all processes, seen twice a second. Bytes are those of",
        "read and write calls up to the last look: of what takes less than a second much is",
        "missing, as is what is read of files mapped into memory. Lines of the groups rows and",
        "start, those of sentiment, and runs on messages that are all in the store, are the middle",
        "one of three measures, up to 1,000,000 reviews.",
        "",
    ]
    for size, part in frame.groupby("reviews"):
        texts += [
            f"## {size:,} reviews ({', '.join(sorted(part['date'].unique()))})",
            "",
            HEADER,
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for row in part.itertuples():
            if isinstance(row.failed, str):
                texts.append(f"| {row.what} | failed: {row.failed} |" + " |" * 7)
                continue
            ratio = "" if pd.isna(row.times_as_fast) else f"{row.times_as_fast:.2f}"
            speed = "" if pd.isna(row.bytes) else f", {row.bytes / row.seconds / 1e6:,.0f} MB/s"
            texts.append(
                f"| {row.what}{speed} | {row.rows:,.0f} | {row.seconds:,.1f} "
                f"| {row.rows_per_second:,.0f} | {ratio} | {row.cpu_seconds:,.1f} "
                f"| {row.peak_bytes / 1e9:.2f} | {_gigabytes(row.read_bytes)} "
                f"| {_gigabytes(row.written_bytes)} |"
            )
        texts.append("")
    for name, seconds in stages.items():
        texts += [
            f"Seconds of the stages, {name} (those of several processes added up):",
            "",
            *(f"- {stage}: {took:,.1f}" for stage, took in seconds.items() if took >= 0.05),
            "",
        ]
    return "\n".join(texts)


def _gigabytes(size: float | None) -> str:
    return "" if pd.isna(size) else f"{size / 1e9:.2f}"


def picture(frame: pd.DataFrame, path: Path) -> None:
    """Draw seconds against size, for what was measured at several sizes."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for what, part in frame[frame["rows"] > 0].groupby("what"):
        if part["rows"].nunique() > 1:
            axes.plot(part["rows"], part["seconds"], marker="o", label=what)
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="seconds")
    if axes.lines:
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def write(output: Path, build: Path) -> str:
    """Write the report of all sizes measured so far, and give its text."""
    frames, stages = [], {}
    for results in sorted(build.glob("*/results.json")):
        measures = json.loads(results.read_text())
        folder = results.parent.name
        size = SIZES.get(folder) or int(folder)
        frames.append(table(measures, size))
        for name, measure in measures.items():
            if "stages" in measure and name.startswith(("inference", "features", "train: ")):
                stages[f"{name}, {size:,} reviews"] = measure["stages"]
    frame = pd.concat(frames, ignore_index=True).sort_values("reviews", kind="stable")
    output.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(output / "scale.parquet")
    text = markdown(frame, stages)
    (output / "scale.md").write_text(text + "\n", encoding="utf-8")
    picture(frame, output / "scale.png")
    return text
