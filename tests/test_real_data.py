"""Whole runs on real reviews: what is there comes out, and the model is of some use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]

QUICK = (
    "embedder=none",
    "classifier=logistic",
    "training.model.learn.text.cv=2",
    "training.pictures=false",
    "logs.level=WARNING",
)


def yelp(folder: Path, *tables: str) -> list[str]:
    files = {table: folder / f"yelp_academic_dataset_{table}.json" for table in tables}
    return ["dataset=yelp", *(f"dataset.{table}={path}" for table, path in files.items())]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics(root: Path) -> dict[str, Any]:
    path = root / "data" / "08_reporting" / "metrics.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def features(root: Path) -> pd.DataFrame:
    """Give the derived features, which are saved for inspection."""
    validated = pd.read_parquet(root / "data" / "02_intermediate" / "validated.parquet")
    derived = pd.read_parquet(root / "data" / "03_primary" / "features.parquet")
    return validated.merge(derived.drop(columns="text"), on="id", validate="1:1")


def check_counts(record: dict[str, Any], n_rows: int) -> None:
    stages = record["stages"]
    for stage in stages.values():
        parts = stage["delivered"] + stage["rejected"] + stage["duplicates"]
        assert stage["read"] == parts
    assert stages["feature/extract"]["read"] == n_rows
    assert stages["feature/store"]["delivered"] == stages["feature/validate"]["delivered"]


@pytest.fixture(scope="module")
def reviews_root(cli: Cli, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root in which the reviews of all three tables were learned from."""
    root = tmp_path_factory.mktemp("yelp") / "root"
    source = yelp(shared_data / "yelp", "review", "user", "business")
    ended = cli(*source, *QUICK, f"paths.root={root}", "pipeline.on_skew=report")
    assert ended.status in {0, 3}, ended.stderr
    return root


def test_three_tables(reviews_root: Path, shared_data: Path, last_run: LastRun) -> None:
    folder = shared_data / "yelp"
    n_reviews = len(lines(folder / "yelp_academic_dataset_review.json"))
    record = last_run(reviews_root)
    check_counts(record, n_reviews)
    assert record["stages"]["feature/user"]["read"] == 38
    assert record["stages"]["feature/business"]["read"] == 432
    rows = features(reviews_root)
    assert len(rows) == n_reviews
    assert rows["fans"].notna().sum() == 842
    assert rows["city"].notna().all()
    assert rows.loc[rows["fans"].notna(), "user_tenure_days"].min() >= 0
    # The files write 2020 as "20,20": no user was elite more often than there were years.
    assert rows["elite_years"].max() < 2023 - 2004
    assert metrics(reviews_root)["f1_weighted"] >= 0.70


def test_later_reviews_are_new_messages(
    cli: Cli, reviews_root: Path, shared_data: Path, last_run: LastRun, delivered: Any
) -> None:
    folder = shared_data / "yelp"
    new = folder / "yelp_academic_dataset_review_new.json"
    source = yelp(folder, "review", "user", "business")
    ended = cli(
        "pipeline=inference",
        *source,
        f"inference.source={new}",
        f"paths.root={reviews_root}",
        "logs.level=WARNING",
    )
    assert ended.status in {0, 3}, ended.stderr
    asked = lines(new)
    predictions = delivered(reviews_root)
    assert predictions.index.tolist() == [row["review_id"] for row in asked]
    verdict = last_run(reviews_root)["shares"]
    assert verdict["n_rows"] == len(asked) == 198
    assert ended.status == (3 if verdict["verdict"] == "outside" else 0)
    stars = pd.Series([row["stars"] for row in asked], index=predictions.index)
    right = predictions["prediction"] == pd.cut(stars, [0, 2, 3, 5], labels=False)
    assert right.mean() >= 0.75


def test_no_user_table(cli: Cli, shared_data: Path, tmp_path: Path, last_run: LastRun) -> None:
    source = yelp(shared_data / "yelp_head", "review", "business")
    ended = cli(*source, *QUICK, f"paths.root={tmp_path}", "pipeline.on_skew=report")
    assert ended.status in {0, 3}, ended.stderr
    record = last_run(tmp_path)
    check_counts(record, 999)
    assert "feature/user" not in record["stages"]
    rows = features(tmp_path)
    assert rows["city"].notna().sum() == 77
    assert rows[["review_count_user", "yelping_since", "elite", "fans"]].isna().all(axis=None)
    predictions = tmp_path / "data" / "09_inference" / "predictions.parquet"
    assert pq.read_metadata(predictions).num_rows == record["shares"]["n_rows"] > 100


def test_messages_by_overrides_alone(
    *, cli: Cli, shared_data: Path, tmp_path: Path, last_run: LastRun, delivered: Any
) -> None:
    path = shared_data / "messages" / "restaurant_reviews.csv"
    ended = cli(
        "dataset=messages",
        f"dataset.path={path}",
        "dataset.categorical=[city]",
        *QUICK,
        f"paths.root={tmp_path}",
        "pipeline.on_skew=report",
    )
    assert ended.status in {0, 3}, ended.stderr
    table = pd.read_csv(path)
    record = last_run(tmp_path)
    check_counts(record, len(table))
    rows = features(tmp_path)
    rejected = pd.read_parquet(tmp_path / "data" / "02_intermediate" / "rejected.parquet")
    assert len(rows) + rejected["row"].nunique() == len(table) == 2056
    cities = table.drop_duplicates("id").set_index("id")["city"]
    assert rows["city"].tolist() == cities.loc[rows["id"]].tolist()
    found = metrics(tmp_path)
    assert 0.80 <= found["f1_weighted"] < 0.95
    assert 0.60 <= found["f1_macro"] < 0.95
    # The newest fifth was held back and is what was labelled.
    labelled = delivered(tmp_path)
    dates = rows.set_index("id")["date"]
    assert len(labelled) == pytest.approx(len(rows) / 5, abs=5)
    assert dates.loc[labelled.index].min() >= dates.drop(labelled.index).max()


def test_a_feature_of_ones_own_must_be_in_new_messages_too(
    cli: Cli, shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "messages" / "restaurant_reviews.csv"
    source = ("dataset=messages", f"dataset.path={path}", "dataset.categorical=[username]")
    ended = cli(
        *source,
        *QUICK,
        "classifier=prior",
        "training.model.learn.text=null",
        "training.thresholds={f1_macro: 0, recall_macro: 0}",
        "pipeline.stages=[feature,training]",
        f"paths.root={tmp_path}",
    )
    assert ended.status == 0, ended.stderr
    new = tmp_path / "new.csv"
    pd.read_csv(path).head(5).drop(columns="username").to_csv(new, index=False)
    ended = cli(
        "pipeline=inference",
        "dataset=messages",
        f"inference.source={new}",
        f"paths.root={tmp_path}",
    )
    assert ended.status == 2
    assert f"{new} has no column 'username'" in ended.stderr
