"""Files that cannot be used: status 2, one error that says which and why, earlier results kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

Cli = Callable[..., Any]
Messages = Callable[..., Path]

FILES = {
    "empty.csv": "",
    "blank.csv": "\n\n",
    "header.csv": "id,text,rating\n",
    "untexted.csv": "id,body,rating\n1,good,5\n",
    "nothing_good.csv": "id,text,rating\n1,,5\n2,  ,4\n",
    "unnamed.txt": "id,text\n1,good\n",
    "empty.json": "",
    "broken.json": '{"id": "1",\nnot json\n[1, 2]\n',
    "textless.json": '{"id": "1", "body": "good"}\n',
    "no.parquet": "id,text\n1,good\n",
    "cut.csv.gz": "id,text\n1,good\n",
}

FAULTS = [
    ("nowhere.csv", "{key}: {path} does not exist"),
    ("nowhere/*.csv", "{key}: {path} matches no file"),
    (".", "{key} must name files, but {path} is a folder"),
    ("empty.csv", "{path}"),
    ("blank.csv", "{path}"),
    ("header.csv", "None of 0 rows of {path} was accepted: it holds no rows"),
    ("untexted.csv", "dataset.columns.text: {path} has no column 'text'; it has ['id', 'body', "),
    ("nothing_good.csv", "None of 2 rows of {path} was accepted: see {rejected}"),
    ("unnamed.txt", "{path}: the format must show in the name"),
    ("empty.json", "None of 0 rows of {path} was accepted: it holds no rows"),
    ("broken.json", "None of 3 rows of {path} was accepted: see {rejected}"),
    ("textless.json", "dataset.columns.text: {path} has no column 'text'; it has ['id', 'body']"),
    ("no.parquet", "{path} is not a whole Parquet file"),
    ("cut.csv.gz", "{path} is not a whole gzip file"),
]

LEARNING = [fault for fault in FAULTS if "{key}" in fault[1] or "{rejected}" in fault[1]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Folder of `FILES`."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def only_error(stderr: str) -> str:
    (line,) = [line for line in stderr.splitlines() if "ERROR" in line]
    assert stderr.splitlines()[-1] == line
    assert "Traceback" not in stderr
    return line


@pytest.mark.parametrize(("name", "message"), LEARNING, ids=[name for name, _ in LEARNING])
def test_messages_to_learn_from(
    cli: Cli, files: Path, tmp_path: Path, name: str, message: str
) -> None:
    root, path = tmp_path / "root", files / name
    source = ("dataset=messages", f"dataset.path={path}")
    ended = cli("pipeline=feature", *source, f"paths.root={root}", "embedder=none")
    assert ended.status == 2
    rejected = root / "data" / "02_intermediate" / "rejected.parquet"
    expected = message.format(key="dataset.path", path=path, rejected=rejected)
    assert expected in only_error(ended.stderr)
    assert not (root / "data" / "04_feature" / "manifest.json").exists()


@pytest.mark.parametrize(("name", "message"), FAULTS, ids=[name for name, _ in FAULTS])
def test_messages_to_score(
    cli: Cli, files: Path, messages_root: Path, name: str, message: str
) -> None:
    predictions = messages_root / "data" / "09_inference" / "predictions.parquet"
    predictions.parent.mkdir(parents=True, exist_ok=True)
    predictions.write_text("those of yesterday")
    path = files / name
    ended = cli(
        "pipeline=inference",
        "dataset=messages",
        f"inference.source={path}",
        f"paths.root={messages_root}",
    )
    assert ended.status == 2
    rejected = predictions.with_name("rejected.parquet")
    expected = message.format(key="inference.source", path=path, rejected=rejected)
    assert expected in only_error(ended.stderr)
    assert predictions.read_text() == "those of yesterday"


@pytest.mark.parametrize("column", ["id", "text", "date", "rating", "label"])
def test_a_column_that_is_named_must_be_there(
    cli: Cli, messages: Messages, tmp_path: Path, column: str
) -> None:
    path = messages(tmp_path / "train.csv", 20)
    root = tmp_path / "root"
    source = ("dataset=messages", f"dataset.path={path}", f"dataset.columns.{column}=nope")
    ended = cli("pipeline=feature", *source, f"paths.root={root}")
    assert ended.status == 2
    expected = f"dataset.columns.{column}: {path} has no column 'nope'; it has ['id', 'text', "
    assert expected in only_error(ended.stderr)


@pytest.mark.parametrize(
    ("dataset", "missing"), [("yelp", "review_id"), ("messages", "text"), ("sample", "review_id")]
)
def test_new_messages_of_another_kind_are_told_apart_by_their_columns(
    cli: Cli, messages_root: Path, tmp_path: Path, dataset: str, missing: str
) -> None:
    path = tmp_path / "new.csv"
    path.write_text("number,body\n1,good\n")
    ended = cli(
        "pipeline=inference",
        f"dataset={dataset}",
        "sample.n_reviews=20",
        f"inference.source={path}",
        f"paths.root={messages_root}",
    )
    assert ended.status == 2
    assert f"{path} has no column '{missing}'; it has ['number', 'body']" in ended.stderr


def test_broken_lines_among_good_ones_cost_only_themselves(
    cli: Cli, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"id": "1", "text": "good"}\n{"id": "2", "te\n\n{"id": "3", "text": ""}\n')
    root = tmp_path / "root"
    source = ("dataset=messages", f"dataset.path={path}")
    ended = cli("pipeline=feature", *source, f"paths.root={root}", *quick)
    assert ended.status == 0
    rejected = pd.read_parquet(root / "data" / "02_intermediate" / "rejected.parquet")
    assert rejected.columns.tolist() == ["source", "row", "id", "column", "check", "value"]
    found = rejected.set_index("row")
    assert found["source"].eq(str(path)).all()
    assert found.loc[2, ["column", "check", "value"]].tolist() == [
        "line",
        "valid JSON",
        '{"id": "2", "te',
    ]
    assert found.loc[4, ["id", "column"]].tolist() == ["3", "text"]


def test_training_needs_features(cli: Cli, tmp_path: Path) -> None:
    ended = cli("pipeline=training", f"paths.root={tmp_path}")
    assert ended.status == 2
    line = only_error(ended.stderr)
    assert f"There are no features in {tmp_path / 'data' / '04_feature'}" in line
    assert "run pipeline=feature first" in line


def test_training_needs_labels(
    cli: Cli, messages: Messages, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    path = messages(tmp_path / "unlabelled.csv", 50, columns=("id", "text"))
    root = f"paths.root={tmp_path / 'root'}"
    source = ("dataset=messages", f"dataset.path={path}")
    assert cli("pipeline=feature", *source, root, *quick).status == 0
    ended = cli("pipeline=training", root, *quick)
    assert ended.status == 2
    only_error(ended.stderr)


def test_training_needs_every_class(
    cli: Cli, messages: Messages, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    path = messages(tmp_path / "two.csv", 80, stars=(1, 5))
    root = f"paths.root={tmp_path / 'root'}"
    source = ("dataset=messages", f"dataset.path={path}", "dataset.columns.rating=rating")
    assert cli("pipeline=feature", *source, root, *quick).status == 0
    ended = cli("pipeline=training", root, *quick)
    assert ended.status == 2
    assert "0 neutral" in only_error(ended.stderr)


def test_inference_needs_a_model(cli: Cli, messages: Messages, tmp_path: Path) -> None:
    path = messages(tmp_path / "new.csv", 5)
    source = ("dataset=messages", f"inference.source={path}")
    ended = cli("pipeline=inference", *source, f"paths.root={tmp_path / 'root'}")
    assert ended.status == 1
    assert "No model is in use in" in only_error(ended.stderr)
    assert "run pipeline=training first" in ended.stderr


def test_inference_needs_messages(cli: Cli, messages_root: Path) -> None:
    shutil.rmtree(messages_root / "data" / "09_inference")
    ended = cli("pipeline=inference", "dataset=messages", f"paths.root={messages_root}")
    assert ended.status == 2
    assert "inference.source must name the new messages" in only_error(ended.stderr)


@pytest.mark.parametrize("damage", ["model_pipeline.joblib", "card.json", "current"])
def test_a_damaged_model_is_refused(
    cli: Cli, messages: Messages, messages_root: Path, tmp_path: Path, damage: str
) -> None:
    folder = messages_root / "models" / "sentiment"
    version = (folder / "current").read_text().strip()
    path = folder / damage if damage == "current" else folder / version / damage
    if damage == "card.json":
        card = json.loads(path.read_text())
        path.write_text(json.dumps({**card, "seed": 1234}))
    else:
        path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    new = messages(tmp_path / "new.csv", 5)
    source = ("dataset=messages", f"inference.source={new}")
    ended = cli("pipeline=inference", *source, f"paths.root={messages_root}")
    assert ended.status == 1
    assert str(path) in only_error(ended.stderr)
    assert not (messages_root / "data" / "09_inference" / "predictions.parquet").exists()
