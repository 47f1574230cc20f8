"""Labels that come later: joined by id, judged, and kept; none is dropped in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from batch_nlp.score.job import SCORES

NAMES = ["negative", "neutral", "positive"]

Score = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def score(cli: Callable[..., Any], root: Path, last_run: Callable[[Path], Any]) -> Score:
    """Run ``pipeline=score`` and give its record and its messages."""

    def run(*overrides: str, status: int = 0) -> tuple[dict[str, Any], str]:
        ended = cli("pipeline=score", f"paths.root={root}", *overrides)
        assert ended.status == status, ended.stderr
        return last_run(root), ended.stderr

    return run


@pytest.fixture(scope="module")
def truth(trained_root: Path) -> pd.DataFrame:
    """The classes of the rows held out, which are those that were predicted."""
    path = trained_root / "data" / "07_model_output" / "test_predictions.parquet"
    return pd.read_parquet(path)[["id", "target"]]


@pytest.fixture
def labels(truth: pd.DataFrame, tmp_path: Path) -> Path:
    """Some of them in a CSV of other names, with all that can be wrong with a label."""
    rows = truth.iloc[:100].assign(sentiment=lambda each: [NAMES[n] for n in each["target"]])
    rows = rows.rename(columns={"id": "message"})[["message", "sentiment"]]
    more = pd.DataFrame(
        {
            "message": [rows["message"][0], "stranger", truth["id"][100], truth["id"][101], None],
            "sentiment": ["neutral", "positive", "great", None, "positive"],
        }
    )
    path = tmp_path / "labels.csv"
    pd.concat([rows, more]).to_csv(path, index=False)
    return path


@pytest.fixture
def named(labels: Path) -> tuple[str, ...]:
    """Overrides that name that file and its columns."""
    columns = ("dataset.columns.id=message", "dataset.columns.label=sentiment")
    return ("dataset=messages", *columns, f"score.labels={labels}")


def test_labels_are_joined_by_id_and_the_predictions_are_judged(
    score: Score, named: tuple[str, ...], root: Path, truth: pd.DataFrame
) -> None:
    record, said = score(*named)
    predictions = pd.read_parquet(root / "data" / "09_inference" / "predictions.parquet")
    both = truth.iloc[:100].merge(predictions, on="id")
    row = pd.read_parquet(root / "data" / "08_reporting" / "scores.parquet").iloc[0]
    assert row["accuracy"] == pytest.approx((both["target"] == both["prediction"]).mean())
    neutral, called = both["target"] == 1, both["prediction"] == 1
    found = (neutral & called).sum()
    assert row["precision_neutral"] == pytest.approx(found / called.sum())
    assert row["recall_neutral"] == pytest.approx(found / neutral.sum())
    assert f"neutral precision {row['precision_neutral']:.3f}" in said
    assert row["predictions_run_id"] == predictions["run_id"][0]
    assert row["model_version"] == predictions["model_version"][0]
    assert row["estimated_f1_macro_low"] <= row["f1_macro"] <= row["estimated_f1_macro_high"]
    assert bool(row["f1_macro_as_estimated"])
    assert record["score"]["f1_macro"] == row["f1_macro"]
    assert "Scored the predictions of run" in said


def test_every_label_is_accounted_for(score: Score, named: tuple[str, ...], root: Path) -> None:
    record, said = score(*named)
    row = record["score"]
    parts = ("matched", "not_predicted", "rejected", "duplicates")
    assert [row[f"labels_{part}"] for part in parts] == [100, 1, 3, 1]
    assert row["labels_read"] == 105
    assert row["predictions_without_label"] == row["predictions"] - 100 > 0
    path = root / "data" / "08_reporting" / "scores_rejected.parquet"
    rejected = pd.read_parquet(path).sort_values("row")
    assert rejected[["row", "column", "check"]].to_numpy().tolist() == [
        [101, "message", "not a duplicate"],
        [102, "message", "among the predictions"],
        [103, "sentiment", "0, 1, 2 or one of negative, neutral, positive"],
        [104, "sentiment", "not missing"],
        [105, "message", "not missing"],
    ]
    assert f"{row['predictions_without_label']:,} of" in said
    assert str(path) in said


def test_the_history_grows_and_has_what_monitoring_estimated(
    score: Score, named: tuple[str, ...], root: Path
) -> None:
    path = root / "data" / "08_reporting" / "scores.parquet"
    score(*named)
    first = pq.read_table(path)
    assert first.schema.equals(SCORES)
    score(*named)
    both = pq.read_table(path)
    assert both.num_rows == 2
    assert both.slice(0, 1).equals(first)
    monitored = pd.read_parquet(root / "data" / "08_reporting" / "monitoring.parquet").iloc[0]
    estimated = both["run_estimated_f1_macro"].to_pylist()
    assert estimated == [pytest.approx(monitored["estimated_f1_macro"])] * 2


def test_stars_become_the_classes_that_the_model_was_trained_on(
    score: Score, root: Path, truth: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "reviews.jsonl"
    stars = {0: 2, 1: 3, 2: 4}
    lines = [
        json.dumps({"review_id": each["id"], "stars": stars[each["target"]]})
        for each in truth.to_dict("records")
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    other_rule = ("training.label.negative=1", "training.label.positive=5")
    record, _ = score(f"score.labels={path}", *other_rule)
    metrics = json.loads((root / "data" / "08_reporting" / "metrics.json").read_text())
    assert record["score"]["labels_matched"] == len(truth)
    for name in ("f1_macro", "f1_weighted", "log_loss"):
        assert record["score"][name] == pytest.approx(metrics[name], abs=1e-4)


def test_predictions_of_another_run_can_be_named(
    score: Score, named: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    folder = root / "data" / "09_inference"
    shutil.move(folder / "predictions.parquet", tmp_path / "kept.parquet")
    record, _ = score(*named, status=2)
    assert record["error"].startswith("There are no predictions in")
    record, _ = score(*named, f"score.predictions={tmp_path / 'kept.parquet'}")
    assert record["score"]["labels_matched"] == 100


def test_what_cannot_be_scored_is_said(
    score: Score, named: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    path = root / "data" / "09_inference" / "predictions.parquet"
    kept = pd.read_parquet(path)

    def error(predictions: pd.DataFrame) -> str:
        predictions.to_parquet(tmp_path / "other.parquet")
        record, _ = score(*named, f"score.predictions={tmp_path / 'other.parquet'}", status=2)
        return str(record["error"])

    assert "holds no predictions" in error(kept.iloc[:0])
    assert "more than once" in error(pd.concat([kept, kept]))
    mixed = kept.assign(run_id=["a", *["b"] * (len(kept) - 1)])
    assert "must be of one run, but" in error(mixed)
    assert "is no Parquet file of predictions" in error(kept.drop(columns="label")[["id"]])
    assert not (root / "data" / "08_reporting" / "scores.parquet").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\nm1,good\n", "has no column of labels, neither 'rating' nor 'label'"),
        ("label\npositive\n", "score.labels: .* has no column 'id'"),
        ("id,label\nstranger,positive\n", "None of 1 rows of .* was accepted: see "),
    ],
    ids=["no labels", "no ids", "no match"],
)
def test_a_file_that_labels_nothing_is_refused(
    score: Score, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content, encoding="utf-8")
    record, said = score("dataset=messages", f"score.labels={path}", status=2)
    assert pd.Series([record["error"]]).str.contains(message).all(), record["error"]
    assert "Traceback" not in said


def test_labels_must_be_named(score: Score) -> None:
    record, _ = score(status=2)
    assert record["error"] == ("score.labels must name the file or files of labels; it is not set.")
