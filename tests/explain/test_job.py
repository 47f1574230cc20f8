"""Which messages are explained, and what becomes of those that are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from batch_nlp.errors import InputError
from batch_nlp.explain.job import ExplainJob
from batch_nlp.schemas import EXPLANATIONS, REJECTED

Explain = Callable[..., dict[str, Any]]


@pytest.fixture
def explain(
    cli: Callable[..., Any],
    root: Path,
    fast: tuple[str, ...],
    last_run: Callable[[Path], dict[str, Any]],
) -> Explain:
    """Run ``pipeline=explain`` and give its record."""

    def run(*overrides: str, status: int = 0) -> dict[str, Any]:
        ended = cli(*fast, "pipeline=explain", f"paths.root={root}", *overrides)
        assert ended.status == status, ended.stderr
        assert (ended.status == 0) == (ended.stderr == "")
        return last_run(root)

    return run


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "data" / "09_inference"


@pytest.fixture
def ids(folder: Path) -> list[str]:
    """Ids of the messages that training held back, in their order."""
    return [str(each) for each in pd.read_parquet(folder / "new" / "held_out.parquet")["id"]]


def explained(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "explanations.parquet")


def test_a_sample_of_what_training_held_back(
    explain: Explain, folder: Path, ids: list[str]
) -> None:
    record = explain("explain.sample=7")
    assert pq.read_schema(folder / "explanations.parquet").equals(EXPLANATIONS)
    assert pq.read_schema(folder / "explanations_rejected.parquet").equals(REJECTED)
    found = explained(folder)["id"].unique().tolist()
    assert found == record["explained"]
    assert len(found) == 7
    assert found == [each for each in ids if each in found]
    stage = record["stages"]["explain/explain"]
    assert (stage["read"], stage["delivered"], stage["rejected"]) == (7, 7, 0)
    assert 0 <= record["largest_gap"] <= 1e-4
    page = (folder / "explanations.html").read_text(encoding="utf-8")
    assert all(f"<h2>{each}: " in page for each in found)
    assert page.count("<section>") == 7
    assert record["model_version"] in page


def test_labels_are_those_of_inference(
    explain: Explain, folder: Path, delivered: Callable[[Path], pd.DataFrame], root: Path
) -> None:
    found = explain("explain.sample=7")["explained"]
    labels = delivered(root)["label"]
    page = (folder / "explanations.html").read_text(encoding="utf-8")
    assert all(f"<h2>{each}: {labels[each]}</h2>" in page for each in found)


def test_a_sample_is_the_same_again_and_another_for_another_seed(
    explain: Explain, folder: Path
) -> None:
    def files() -> tuple[bytes, bytes]:
        names = ("explanations.parquet", "explanations.html")
        return tuple((folder / name).read_bytes() for name in names)  # type: ignore[return-value]

    first = explain("explain.sample=5")["explained"]
    before = files()
    assert explain("explain.sample=5", "engine.batch_rows=10")["explained"] == first
    assert files() == before
    assert explain("explain.sample=5", "explain.seed=1")["explained"] != first


def test_a_sample_does_not_depend_on_the_order_of_the_messages(
    explain: Explain, tmp_path: Path, reviews: list[dict[str, Any]]
) -> None:
    rows = pd.DataFrame(reviews[:40])[["review_id", "text"]].rename(columns={"review_id": "id"})
    path = tmp_path / "new.csv"
    source = ("dataset=messages", f"inference.source={path}", "explain.sample=6")
    rows.to_csv(path, index=False)
    first = explain(*source)["explained"]
    rows[::-1].to_csv(path, index=False)
    assert explain(*source)["explained"] == first[::-1]


def test_a_sample_larger_than_the_source_is_all_of_it(
    explain: Explain, folder: Path, ids: list[str]
) -> None:
    assert explain("explain.sample=1000")["explained"] == ids


def test_chosen_messages(explain: Explain, folder: Path, ids: list[str]) -> None:
    asked = [ids[9], ids[3], ids[3]]
    record = explain(f"explain.ids=[{','.join(asked)}]", "engine.batch_rows=5")
    assert record["explained"] == [ids[3], ids[9]]
    assert record["not_explained"] == []
    assert record["stages"]["explain/explain"]["delivered"] == 2


def test_an_unknown_id_is_named_and_nothing_is_replaced(
    explain: Explain, folder: Path, ids: list[str]
) -> None:
    explain("explain.sample=2")
    before = (folder / "explanations.html").read_bytes()
    record = explain(f"explain.ids=[{ids[0]},nobody,nothing]", status=2)
    assert record["error"].startswith("explain.ids must be ids of ")
    assert record["error"].endswith("held_out.parquet, which has no message 'nobody' and 1 more.")
    assert "\n" not in record["error"]
    assert (folder / "explanations.html").read_bytes() == before


def test_messages_that_were_rejected_are_accounted_for(
    explain: Explain, folder: Path, tmp_path: Path, reviews: list[dict[str, Any]]
) -> None:
    rows = pd.DataFrame({"id": [7, 8, 9], "text": [reviews[0]["text"], "  ", reviews[1]["text"]]})
    rows.to_csv(tmp_path / "new.csv", index=False)
    source = ("dataset=messages", f"inference.source={tmp_path / 'new.csv'}", "logs.level=ERROR")
    record = explain(*source, "explain.ids=[7,8]")
    assert record["explained"] == ["7"]
    assert record["not_explained"] == ["8"]
    stage = record["stages"]["explain/explain"]
    assert (stage["read"], stage["delivered"], stage["rejected"]) == (2, 1, 1)
    rejected = pd.read_parquet(folder / "explanations_rejected.parquet")
    assert rejected["id"].tolist() == ["8"]
    record = explain(*source, "explain.ids=[8]", status=2)
    assert record["error"].startswith("None of the messages in explain.ids was accepted: see ")


def test_no_message_at_all(explain: Explain, tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("id,text\na,\n")
    source = ("dataset=messages", f"inference.source={tmp_path / 'none.csv'}")
    assert explain(*source, status=2)["error"].startswith("None of 1 rows of")


def test_texts_stay_texts(explain: Explain, folder: Path, tmp_path: Path) -> None:
    texts = ["5 < 6 <script>alert(1)</script> & so on", "<br>", "<", "zzyzx qwrty"]
    rows = pd.DataFrame({"id": ["<script>a</script>", "b", "c", "d"], "text": texts})
    rows.to_csv(tmp_path / "new.csv", index=False)
    record = explain("dataset=messages", f"inference.source={tmp_path / 'new.csv'}")
    assert record["explained"] == rows["id"].tolist()
    page = (folder / "explanations.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;a&lt;/script&gt;: " in page
    assert "Nothing is left of the text after cleaning." in page


def test_explaining_leaves_predictions_alone(explain: Explain, folder: Path) -> None:
    names = ("predictions.parquet", "rejected.parquet")
    before = [(folder / name).read_bytes() for name in names]
    explain("explain.sample=2")
    assert [(folder / name).read_bytes() for name in names] == before


def test_nothing_to_explain_is_said(explain: Explain, folder: Path) -> None:
    shutil.rmtree(folder)
    assert explain(status=2)["error"].startswith("inference.source must name the new messages")


def test_a_source_that_is_not_there_is_told_first(explain: Explain, tmp_path: Path) -> None:
    record = explain("dataset=messages", f"explain.source={tmp_path / 'gone.csv'}", status=2)
    assert "gone.csv" in record["error"]
    assert record["stages"] == {}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"sample": 0}, "explain.sample must be from 1 to 1,000, got 0."),
        ({"sample": 1001}, "explain.sample must be from 1 to 1,000, got 1001."),
        ({"top_words": 0}, "explain.top_words must be at least 1, got 0."),
        ({"ids": []}, "explain.ids must be null or name 1 to 1,000 messages, got 0."),
        ({"ids": list(range(1001))}, "explain.ids must be null or name 1 to 1,000 .* got 1001."),
    ],
)
def test_settings_out_of_range(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        ExplainJob(**given)


def test_a_classifier_that_cannot_be_taken_apart_is_told(
    cli: Callable[..., Any], root: Path, fast: tuple[str, ...]
) -> None:
    forest = "classifier=random_forest", "classifier.n_estimators=5", "training.gate.max_drop=null"
    assert cli(*fast, *forest, "pipeline=training", f"paths.root={root}").status == 0
    importance = root / "data" / "08_reporting" / "importance.parquet"
    assert pd.read_parquet(importance).empty
    ended = cli(*fast, "pipeline=explain", f"paths.root={root}")
    assert ended.status == 2
    assert "pipeline=explain needs a model whose classifier is XGBoost or linear" in ended.stderr
    assert "RandomForestClassifier" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_trees_are_explained_and_their_features_reported(
    cli: Callable[..., Any], root: Path, fast: tuple[str, ...], folder: Path
) -> None:
    trees = "classifier=xgboost", "classifier.n_estimators=20", "engine.threads=1"
    drawn = "training.pictures=true", "training.gate.max_drop=null"
    assert cli(*fast, *trees, *drawn, "pipeline=training", f"paths.root={root}").status == 0
    reports = root / "data" / "08_reporting"
    important = pd.read_parquet(reports / "importance.parquet")
    assert set(important["class"]) == {0, 1, 2}
    assert important["importance"].ge(0).all()
    assert important["importance"].sum() > 0
    assert (reports / "shap_importance.png").read_bytes().startswith(b"\x89PNG")
    assert cli(*fast, "pipeline=explain", f"paths.root={root}", "explain.sample=3").status == 0
    table = explained(folder)
    features = table[table["part"] == "feature"]["name"]
    assert set(features) == set(important["feature"])
    sums = table[table["part"] != "margin"].groupby(["id", "class", "model"])["contribution"].sum()
    margins = table[table["part"] == "margin"].set_index(["id", "class", "model"])["contribution"]
    pd.testing.assert_series_equal(sums, margins.sort_index(), atol=1e-4, rtol=0)
    card = json.loads((root / "data" / "06_models" / "card.json").read_text(encoding="utf-8"))
    assert card["classifier"] == "XGBClassifier"
