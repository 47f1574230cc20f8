"""New messages to predictions."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_nlp.artifact import Registry
from batch_nlp.schemas import PREDICTIONS, REJECTED
from batch_nlp.tables import file_digest

Cli = Callable[..., Any]


@pytest.fixture
def infer(
    cli: Cli, root: Path, fast: tuple[str, ...], last_run: Callable[[Path], dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    """Run ``pipeline=inference`` and give its record."""

    def run(*overrides: str, status: int = 0) -> dict[str, Any]:
        ended = cli(*fast, "pipeline=inference", f"paths.root={root}", *overrides)
        assert ended.status == status, ended.stderr
        return last_run(root)

    return run


@pytest.fixture
def new(tmp_path: Path, reviews: list[dict[str, Any]]) -> Path:
    """A CSV file of new messages with ratings that nobody can read."""
    rows = pd.DataFrame(reviews[:30])[["review_id", "text", "date"]]
    path = tmp_path / "new.csv"
    rows.rename(columns={"review_id": "id"}).assign(rating="n/a", label="?").to_csv(
        path, index=False
    )
    return path


def test_what_is_delivered(
    infer: Callable[..., Any],
    root: Path,
    delivered: Callable[[Path], pd.DataFrame],
) -> None:
    record = infer()
    folder = root / "data" / "09_inference"
    assert pq.read_schema(folder / "predictions.parquet").equals(PREDICTIONS)
    assert pq.read_schema(folder / "rejected.parquet").equals(REJECTED)
    rows = delivered(root)
    held_out = pd.read_parquet(folder / "new" / "held_out.parquet")
    assert rows.index.tolist() == held_out["id"].tolist()
    probabilities = rows[["proba_negative", "proba_neutral", "proba_positive"]]
    assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1)
    weights = Registry(root / "models", "sentiment").load().card["calibration"]["log_weights"]
    weighted = np.log(probabilities.to_numpy()) + list(weights.values())
    assert (weighted.argmax(axis=1) == rows["prediction"]).all()
    assert set(rows["run_id"]) == {record["run_id"]}
    assert set(rows["model_version"]) == {record["model_version"]}
    current = (root / "models" / "sentiment" / "current").read_text(encoding="utf-8")
    assert record["model_version"] in current


def test_predictions_are_those_of_the_test_set(
    infer: Callable[..., Any], root: Path, delivered: Callable[[Path], pd.DataFrame]
) -> None:
    infer()
    path = root / "data" / "07_model_output" / "test_predictions.parquet"
    tested = pd.read_parquet(path).set_index("id")
    columns = ["prediction", "proba_negative", "proba_neutral", "proba_positive"]
    pd.testing.assert_frame_equal(delivered(root)[columns], tested[columns], rtol=0, atol=1e-5)


def test_ratings_are_not_read(
    infer: Callable[..., Any],
    root: Path,
    new: Path,
    delivered: Callable[[Path], pd.DataFrame],
    turned_away: Callable[[Path], pd.DataFrame],
) -> None:
    source = ("dataset=messages", f"inference.source={new}", "dataset.columns.rating=score")
    infer(*source)
    assert turned_away(root).empty
    first = delivered(root)
    assert len(first) == 30
    pd.read_csv(new).assign(rating=1, label="positive").to_csv(new, index=False)
    infer(*source)
    pd.testing.assert_frame_equal(
        delivered(root).drop(columns="run_id"), first.drop(columns="run_id")
    )


def test_held_out_messages_bring_no_label(root: Path) -> None:
    columns = pq.read_schema(root / "data" / "09_inference" / "new" / "held_out.parquet").names
    assert {"id", "text", "date", "user_id"} <= set(columns)
    assert not {"stars", "label", "average_stars", "stars_business"} & set(columns)


def test_a_csv_file_is_delivered_when_asked_for_and_no_old_one_left(
    infer: Callable[..., Any], root: Path, delivered: Callable[[Path], pd.DataFrame]
) -> None:
    path = root / "data" / "09_inference" / "predictions.csv"
    infer("inference.csv=true")
    rows = pd.read_csv(path, dtype={"id": "str"})
    assert rows.columns.tolist() == PREDICTIONS.names
    ids = delivered(root).index.to_series()
    # A spreadsheet would take these for formulas.
    assert rows["id"].tolist() == ids.mask(ids.str.startswith("-"), "'" + ids).tolist()
    infer()
    assert not path.exists()


def test_what_the_store_holds_is_not_computed_again(
    infer: Callable[..., Any], root: Path, new: Path
) -> None:
    def usage(*overrides: str) -> tuple[int, int]:
        stage = infer(*overrides)["stages"]["inference/features"]
        return stage["computed"], stage["reused"]

    assert usage() == (0, 118)
    source = ("dataset=messages", f"inference.source={new}")
    assert usage(*source) == (30, 0)
    assert usage(*source, "force=true") == (0, 30)
    shutil.rmtree(root / "data" / "04_feature")
    assert usage(*source, "force=true") == (30, 0)


def test_the_record_names_the_sources(infer: Callable[..., Any], new: Path) -> None:
    record = infer("dataset=messages", f"inference.source={new}")
    assert record["inference_sources"] == {str(new): file_digest(new)}


def test_the_shares_are_judged(infer: Callable[..., Any], new: Path, root: Path) -> None:
    source = ("dataset=messages", f"inference.source={new}")
    assert infer(*source)["shares"]["verdict"] == "too few rows"
    record = infer(*source, "inference.shares.min_rows=30", "inference.shares.low=0.34", status=3)
    shares = record["shares"]
    assert shares["verdict"] == "outside"
    assert shares["n_rows"] == 30
    current = next(iter((root / "models" / "sentiment").glob("*/card.json")))
    card = json.loads(current.read_text(encoding="utf-8"))
    assert shares["training_shares"] == card["class_shares"]
    assert record["retrains"] == 0


def test_no_accepted_message_leaves_the_last_predictions(
    infer: Callable[..., Any], root: Path, tmp_path: Path
) -> None:
    path = root / "data" / "09_inference" / "predictions.parquet"
    before = path.read_bytes()
    (tmp_path / "none.csv").write_text("id,text\na,\n")
    record = infer("dataset=messages", f"inference.source={tmp_path / 'none.csv'}", status=2)
    assert record["error"].startswith("None of 1 rows of")
    assert path.read_bytes() == before


def test_nothing_to_score_is_said(infer: Callable[..., Any], root: Path) -> None:
    shutil.rmtree(root / "data" / "09_inference")
    record = infer(status=2)
    assert record["error"].startswith("inference.source must name the new messages")


def test_real_messages(
    infer: Callable[..., Any],
    root: Path,
    shared_data: Path,
    delivered: Callable[[Path], pd.DataFrame],
) -> None:
    path = shared_data / "yelp" / "yelp_academic_dataset_review_new.json"
    infer(
        "dataset=yelp",
        f"inference.source={path}",
        f"dataset.user={path.with_name('yelp_academic_dataset_user.json')}",
        "inference.shares.min_rows=1000",
    )
    ids = [json.loads(line)["review_id"] for line in path.read_text(encoding="utf-8").splitlines()]
    assert delivered(root).index.tolist() == ids


def test_a_cell_of_the_csv_is_no_formula_and_no_path(
    infer: Callable[..., Any], root: Path, tmp_path: Path
) -> None:
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1", '="a,b"']
    plain = ["../../x", "/etc/passwd", "a=1", "'=1", "1-1", "\u00e9"]
    path = tmp_path / "new.parquet"
    pq.write_table(pa.table({"id": formulas + plain, "text": ["good food"] * 15}), path)
    before = {each for each in tmp_path.rglob("*") if "08_reporting" not in each.parts}
    infer("dataset=messages", f"inference.source={path}", "inference.csv=true")
    folder = root / "data" / "09_inference"
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        cells = [row["id"] for row in csv.DictReader(stream)]
    assert cells == [f"'{each}" for each in formulas] + plain
    # Other readers get the ids as they are.
    assert pq.read_table(folder / "predictions.parquet")["id"].to_pylist() == formulas + plain
    after = {each for each in tmp_path.rglob("*") if "08_reporting" not in each.parts}
    made = {each for each in after - before if "04_feature" not in each.parts}
    assert made == {folder / "predictions.csv"}
