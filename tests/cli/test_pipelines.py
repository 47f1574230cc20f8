"""What each pipeline reads and leaves behind, by the names that other tools rely on."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]
Messages = Callable[..., Path]
Content = Callable[[Path], dict[str, bytes]]

PREDICTIONS = {
    "id": pa.string(),
    "prediction": pa.int64(),
    "label": pa.string(),
    "proba_negative": pa.float64(),
    "proba_neutral": pa.float64(),
    "proba_positive": pa.float64(),
    "model_version": pa.string(),
    "run_id": pa.string(),
}
REJECTED = ["source", "row", "id", "column", "check", "value"]
COUNTS = {"read", "delivered", "rejected", "duplicates", "seconds"}


def stages_of(record: dict[str, Any]) -> set[str]:
    return {name.split("/")[0] for name in record["stages"]}


def test_a_full_run_leaves_what_other_tools_rely_on(trained_root: Path, last_run: LastRun) -> None:
    data, record = trained_root / "data", last_run(trained_root)
    folder = trained_root / "models" / "sentiment"
    version = (folder / "current").read_text(encoding="utf-8").strip()
    card = json.loads((folder / version / "card.json").read_text(encoding="utf-8"))
    assert card["version"] == version
    assert json.loads((data / "06_models" / "card.json").read_text(encoding="utf-8")) == card

    schema = pq.read_schema(data / "09_inference" / "predictions.parquet")
    assert dict(zip(schema.names, schema.types, strict=True)) == PREDICTIONS
    assert list(schema.names) == list(PREDICTIONS)
    rows = pd.read_parquet(data / "09_inference" / "predictions.parquet")
    probabilities = rows[["proba_negative", "proba_neutral", "proba_positive"]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    weighted = np.log(probabilities) + list(card["calibration"]["log_weights"].values())
    assert (weighted.argmax(axis=1) == rows["prediction"]).all()
    names = np.array(["negative", "neutral", "positive"])
    assert (names[rows["prediction"]] == rows["label"]).all()
    assert set(rows["model_version"]) == {version}
    assert set(rows["run_id"]) == {record["run_id"]}
    new = pd.read_parquet(data / "09_inference" / "new")
    assert rows["id"].tolist() == new["id"].tolist()
    assert not {"stars", "label"} & set(new.columns)

    for layer in ("02_intermediate", "09_inference"):
        assert pq.read_schema(data / layer / "rejected.parquet").names == REJECTED

    metrics = json.loads((data / "08_reporting" / "metrics.json").read_text(encoding="utf-8"))
    keys = {"f1_weighted", "f1_macro", "recall_macro", "log_loss", "per_class", "confusion_matrix"}
    assert keys <= set(metrics)
    assert np.asarray(metrics["confusion_matrix"]).sum() == len(rows)
    for name in ("confusion_matrix.png", "feature_importance.png", "metrics.parquet"):
        assert (data / "08_reporting" / name).stat().st_size > 0
    for name in ("feature_pipeline.html", "training_pipeline.html"):
        assert "<html" in (data / "08_reporting" / name).read_text(encoding="utf-8").lower()


def test_the_record_of_a_run(trained_root: Path, last_run: LastRun) -> None:
    record = last_run(trained_root)
    folder = trained_root / "data" / "08_reporting" / "runs" / record["run_id"]
    assert {path.name for path in folder.iterdir()} >= {"run.json", "run.log", "config.yaml"}
    assert record["exit_status"] == 0
    assert record["error"] is None
    assert record["pipeline"] == "full"
    assert record["retrains"] == 0
    assert stages_of(record) == {"feature", "training", "inference"}
    for stage in record["stages"].values():
        assert set(stage) >= COUNTS
        lost = stage["read"] - stage["delivered"] - stage["rejected"] - stage["duplicates"]
        assert lost == 0
    verdict = record["shares"]
    rows = pd.read_parquet(trained_root / "data" / "09_inference" / "predictions.parquet")
    shares = rows["label"].value_counts(normalize=True)
    assert verdict["verdict"] == "inside"
    assert verdict["n_rows"] == len(rows)
    assert verdict["shares"] == pytest.approx(shares.to_dict())
    assert sum(verdict["training_shares"].values()) == pytest.approx(1)


def test_layers_are_saved_for_inspection_or_not(
    cli: Cli, messages: Messages, tmp_path: Path
) -> None:
    source = ("dataset=messages", f"dataset.path={messages(tmp_path / 'train.csv', 30)}")
    for choice, expected in ((True, 30), (False, None)):
        root = tmp_path / f"root{choice}"
        save = f"feature.save_layers={str(choice).lower()}"
        ended = cli("pipeline=feature", *source, "embedder=none", save, f"paths.root={root}")
        assert ended.status == 0, ended.stderr
        for name in (
            "02_intermediate/extracted.parquet",
            "02_intermediate/validated.parquet",
            "03_primary/features.parquet",
        ):
            path = root / "data" / name
            assert (pq.read_metadata(path).num_rows if path.exists() else None) == expected
        manifest = json.loads((root / "data" / "04_feature" / "manifest.json").read_text())
        assert manifest["n_rows"] == 30


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
def test_three_commands_on_ones_own_messages(
    *,
    cli: Cli,
    messages: Messages,
    quick: tuple[str, ...],
    last_run: LastRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ids: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    brought = ("id", "text") if ids else ("text",)
    messages(tmp_path / "train.csv", 300, columns=(*brought, "rating"))
    messages(tmp_path / "test.csv", 120, columns=brought, seed=1)
    root = tmp_path / "elsewhere"

    ended = cli(
        "pipeline=feature",
        "dataset=messages",
        "dataset.path=train.csv",
        "dataset.columns.rating=rating",
        "paths.root=elsewhere",
        *quick,
    )
    assert ended.status == 0, ended.stderr
    assert ("bring no id" in ended.stderr) is not ids
    record = last_run(root)
    assert stages_of(record) == {"feature"}
    assert record["ids"] == ("given" if ids else "derived from content")

    ended = cli("pipeline=training", "paths.root=elsewhere", *quick)
    assert ended.status == 0, ended.stderr
    assert stages_of(last_run(root)) == {"training"}

    ended = cli(
        "pipeline=inference",
        "dataset=messages",
        "inference.source=test.csv",
        "paths.root=elsewhere",
    )
    assert ended.status == 0, ended.stderr
    assert stages_of(last_run(root)) == {"inference"}

    rows = pd.read_parquet(root / "data" / "09_inference" / "predictions.parquet")
    asked = pd.read_csv(tmp_path / "test.csv")
    assert len(rows) == len(asked) == 120
    assert rows["id"].is_unique
    if ids:
        assert rows["id"].tolist() == asked["id"].tolist()
    # The words of a message tell its class, so nearly all must be right, each in its own row.
    told = asked["text"].str.extract(r"\b(awful|rude|dirty|okay|average|fine|great|lovely)\b")[0]
    classes = dict.fromkeys(("awful", "rude", "dirty"), 0) | dict.fromkeys(("great", "lovely"), 2)
    expected = told.map(classes).fillna(1)[told.notna()]
    assert len(expected) > 40
    assert (rows["prediction"][told.notna()] == expected).mean() > 0.9


def test_names_of_labels_do_as_well_as_ratings(
    cli: Cli, messages: Messages, quick: tuple[str, ...], tmp_path: Path
) -> None:
    frame = pd.read_csv(messages(tmp_path / "train.csv", 200))
    frame["mood"] = frame.pop("rating").map({1: "Negative", 3: "neutral", 5: "2"})
    frame.to_csv(tmp_path / "train.csv", index=False)
    source = ("dataset=messages", f"dataset.path={tmp_path / 'train.csv'}")
    root = f"paths.root={tmp_path / 'root'}"
    ended = cli(*source, "dataset.columns.label=mood", root, *quick, "inference.shares.min_rows=1")
    assert ended.status == 0, ended.stderr


def test_new_messages_may_still_have_their_ratings_and_they_change_nothing(
    *, cli: Cli, messages: Messages, messages_root: Path, delivered: Any, tmp_path: Path
) -> None:
    new = messages(tmp_path / "new.csv", 120, seed=2)
    blind = tmp_path / "blind.csv"
    pd.read_csv(new).drop(columns="rating").to_csv(blind, index=False)
    spoilt = tmp_path / "spoilt.csv"
    pd.read_csv(new).assign(rating="none of your business").to_csv(spoilt, index=False)
    results = []
    for path in (new, blind, spoilt):
        ended = cli(
            "pipeline=inference",
            "dataset=messages",
            "dataset.columns.rating=rating",
            f"inference.source={path}",
            f"paths.root={messages_root}",
        )
        assert ended.status == 0, ended.stderr
        results.append(delivered(messages_root).drop(columns="run_id"))
    assert len(results[0]) == 120
    pd.testing.assert_frame_equal(results[0], results[1])
    pd.testing.assert_frame_equal(results[0], results[2])


def test_predictions_as_csv_and_none_is_left_of_an_earlier_run(
    cli: Cli, messages: Messages, messages_root: Path, tmp_path: Path
) -> None:
    folder = messages_root / "data" / "09_inference"
    source = f"inference.source={messages(tmp_path / 'new.csv', 110, seed=3)}"
    run = ("pipeline=inference", "dataset=messages", source, f"paths.root={messages_root}")
    assert cli(*run, "inference.csv=true").status == 0
    rows = pd.read_parquet(folder / "predictions.parquet")
    table = pd.read_csv(folder / "predictions.csv", dtype={"id": "str"})
    assert table.columns.tolist() == list(PREDICTIONS)
    pd.testing.assert_frame_equal(table, rows, check_exact=True)
    assert cli(*run).status == 0
    assert not (folder / "predictions.csv").exists()


def test_the_first_of_an_id_is_scored_and_the_rest_is_rejected(
    *,
    cli: Cli,
    messages_root: Path,
    delivered: Any,
    turned_away: Any,
    last_run: LastRun,
    tmp_path: Path,
) -> None:
    path = tmp_path / "new.csv"
    path.write_text("id,text\nb,great food\na,awful food\nb,rude staff\nc,\na,awful food\n")
    ended = cli(
        "pipeline=inference",
        "dataset=messages",
        f"inference.source={path}",
        f"paths.root={messages_root}",
    )
    assert ended.status == 0, ended.stderr
    assert delivered(messages_root).index.tolist() == ["b", "a"]
    rejected = turned_away(messages_root).sort_values("row")
    assert rejected[["row", "id", "column"]].to_numpy().tolist() == [
        [3, "b", "id"],
        [4, "c", "text"],
        [5, "a", "id"],
    ]
    assert rejected["check"].tolist()[::2] == ["not a duplicate"] * 2
    record = last_run(messages_root)
    assert record["shares"]["verdict"] == "too few rows"
    stages = record["stages"]
    assert stages["inference/extract"]["read"] == 5
    assert stages["inference/deduplicate"]["duplicates"] == 2
    assert stages["inference/validate"]["rejected"] == 1
    assert stages["inference/predict"]["delivered"] == 2


def test_two_roots_never_touch(
    cli: Cli, messages_root: Path, messages: Messages, content: Content, tmp_path: Path
) -> None:
    before = content(messages_root)
    other = tmp_path / "other"
    source = ("dataset=messages", f"dataset.path={messages(tmp_path / 'train.csv', 150, seed=5)}")
    quick = ("embedder=none", "classifier=logistic", "inference.shares.min_rows=1000")
    ended = cli(*source, "dataset.columns.rating=rating", *quick, f"paths.root={other}")
    assert ended.status == 0, ended.stderr
    assert content(messages_root) == before
    assert {path.name for path in tmp_path.iterdir()} == {"messages_root", "other", "train.csv"}
    assert {path.name for path in other.iterdir()} == {"data", "models"}


def test_a_model_has_a_name_of_its_own(cli: Cli, messages_root: Path) -> None:
    run = ("pipeline=training", "classifier=logistic", f"paths.root={messages_root}")
    assert cli(*run, "model.name=second").status == 0
    models = messages_root / "models"
    assert {path.name for path in models.iterdir()} == {"sentiment", "second"}
    versions = {path.name: (path / "current").read_text() for path in models.iterdir()}
    assert len(set(versions.values())) == 2


def test_a_multirun_ends_with_the_worst_of_its_runs(
    cli: Cli, messages_root: Path, content: Content
) -> None:
    current = messages_root / "models" / "sentiment" / "current"
    before = current.read_text()
    runs = messages_root / "data" / "08_reporting" / "runs"
    known = set(runs.glob("*/run.json"))
    sweep = ("-m", "pipeline=training", "classifier=prior,logistic")
    ended = cli(*sweep, f"paths.root={messages_root}")
    assert ended.status == 1
    records = [json.loads(path.read_text()) for path in set(runs.glob("*/run.json")) - known]
    assert sorted(record["exit_status"] for record in records) == [0, 1]
    assert current.read_text() != before


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("classifier=prior", "f1_macro is"),
        ("training.thresholds.f1_macro=0.99", "below training.thresholds.f1_macro 0.99"),
    ],
)
def test_a_model_below_the_gate_replaces_nothing(
    *, cli: Cli, root: Path, fast: tuple[str, ...], content: Content, choice: str, reason: str
) -> None:
    kept = [root / "models", root / "data" / "09_inference", root / "data" / "06_models"]
    before = [content(folder) for folder in kept]
    ended = cli(*fast, "pipeline=training", choice, f"paths.root={root}")
    assert ended.status == 1
    assert reason in ended.stderr
    assert "nothing is replaced" in ended.stderr
    assert [content(folder) for folder in kept] == before


@pytest.mark.skipif(find_spec("torch") is not None, reason="the extra `transformers` is installed")
def test_distilling_without_the_extra_says_how_to_get_it(cli: Cli, tmp_path: Path) -> None:
    ended = cli("pipeline=distill", f"paths.root={tmp_path}")
    assert ended.status == 2
    (line,) = ended.stderr.splitlines()
    assert "make install EXTRAS=transformers" in line
    assert not (tmp_path / "models").exists()


@pytest.mark.skipif(find_spec("torch") is not None, reason="the extra `transformers` is installed")
def test_the_sentence_embedder_without_the_extra_says_how_to_get_it(
    cli: Cli, messages: Messages, tmp_path: Path
) -> None:
    source = ("dataset=messages", f"dataset.path={messages(tmp_path / 'train.csv', 30)}")
    root = f"paths.root={tmp_path / 'root'}"
    ended = cli("pipeline=feature", *source, "embedder=sentence", root)
    assert ended.status == 2
    assert "make install EXTRAS=transformers" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
