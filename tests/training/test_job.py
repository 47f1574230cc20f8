"""Features to a trained model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score
from sklearn.pipeline import Pipeline

from batch_nlp.artifact import Artifact, Registry
from batch_nlp.training.job import TrainingJob

Cli = Callable[..., Any]
LastRun = Callable[[Path], dict[str, Any]]

STARS = {1.0: 0, 2.0: 0, 3.0: 1, 4.0: 2, 5.0: 2}


def artifact_of(root: Path) -> Artifact:
    return Registry(root / "models", "sentiment").load()


def layer(root: Path, *names: str) -> pd.DataFrame:
    return pd.read_parquet(root.joinpath("data", *names))


def snapshot(root: Path) -> pd.DataFrame:
    path = root / "data" / "04_feature" / "manifest.json"
    return layer(root, "04_feature", json.loads(path.read_text(encoding="utf-8"))["snapshot"])


@pytest.fixture
def train(
    cli: Cli, root: Path, fast: tuple[str, ...], last_run: LastRun
) -> Callable[..., dict[str, Any]]:
    """Run ``pipeline=training``, put what it makes in use, and give its record."""
    base = (*fast, "pipeline=training", f"paths.root={root}", "training.gate.max_drop=null")

    def run(*overrides: str, status: int = 0) -> dict[str, Any]:
        ended = cli(*base, *overrides)
        assert ended.status == status, ended.stderr
        return last_run(root)

    return run


# Leakage


def test_nothing_that_tells_the_stars_enters_the_model(trained_root: Path) -> None:
    model = artifact_of(trained_root).model_pipeline
    entering = set(model.feature_names_in_)
    assert {"fans", "clean_text", "embedding_000"} <= entering
    assert not {"stars", "label", "average_stars", "stars_business", "id", "key"} & entering
    seen = [str(name) for name in model[-1].feature_names_in_]
    assert not [name for name in seen if "stars" in name or "label" in name]


def test_the_newest_messages_are_held_out(trained_root: Path) -> None:
    split = layer(trained_root, "05_model_input", "split.parquet").set_index("id")
    features = layer(trained_root, "03_primary", "features.parquet").set_index("id")
    validated = layer(trained_root, "02_intermediate", "validated.parquet").set_index("id")
    held_out = split["split"] == "test"
    assert split.index.tolist() == validated.index.tolist()
    texts = features["clean_text"].reindex(split.index)
    assert not set(texts[held_out]) & set(texts[~held_out])
    dates = validated["date"].reindex(split.index)
    newest = dates >= dates[~held_out].max()
    # Older ones are there only because a newest one has the same text.
    assert set(texts[held_out & ~newest]) <= set(texts[held_out & newest])
    assert newest.sum() == pytest.approx(0.2 * len(split), abs=2)
    assert split["target"].tolist() == [STARS[each] for each in validated["stars"]]
    new = layer(trained_root, "09_inference", "new", "held_out.parquet")
    assert new["id"].tolist() == split.index[held_out].tolist()
    assert new["text"].tolist() == features["text"].reindex(new["id"]).tolist()


# What is left behind


def test_reports_agree_with_the_predictions(trained_root: Path, last_run: LastRun) -> None:
    reporting = trained_root / "data" / "08_reporting"
    metrics = json.loads((reporting / "metrics.json").read_text(encoding="utf-8"))
    tested = layer(trained_root, "07_model_output", "test_predictions.parquet")
    for average in ("weighted", "macro"):
        expected = f1_score(tested["target"], tested["prediction"], average=average)
        assert metrics[f"f1_{average}"] == pytest.approx(expected)
    assert np.sum(metrics["confusion_matrix"]) == len(tested)
    assert {"recall_macro", "log_loss", "per_class"} <= set(metrics)
    probabilities = tested[["proba_negative", "proba_neutral", "proba_positive"]].to_numpy()
    right = probabilities.argmax(axis=1) == tested["target"]
    assert sum(each["rows"] for each in metrics["reliability"]) == len(tested)
    assert sum(each["rows"] * each["accuracy"] for each in metrics["reliability"]) == (
        pytest.approx(right.sum())
    )
    assert last_run(trained_root)["metrics"] == metrics
    names = {path.name for path in reporting.iterdir()}
    assert {"confusion_matrix.png", "feature_importance.png", "reliability.png"} <= names
    assert {"feature_pipeline.html", "training_pipeline.html"} <= names


def test_the_card_says_where_the_model_comes_from(trained_root: Path, last_run: LastRun) -> None:
    artifact = artifact_of(trained_root)
    card, record = artifact.card, last_run(trained_root)
    split = layer(trained_root, "05_model_input", "split.parquet")
    trained = split.loc[split["split"] == "train", "target"]
    assert (card["n_train"], card["n_test"]) == (len(trained), len(split) - len(trained))
    assert list(card["class_shares"].values()) == pytest.approx(
        trained.value_counts(normalize=True).sort_index().tolist()
    )
    assert card["metrics"] == record["metrics"]
    assert card["run_id"] == record["run_id"]
    assert card["config_digest"] == record["config_digest"]
    assert card["features"]["sources"] == record["sources"]
    assert card["split"] == "time"
    assert card["classifier"] == "LogisticRegression"
    assert card["parameters"]["C"] == 0.003
    calibration = card["calibration"]
    assert calibration == artifact.model_pipeline[-1].describe()
    assert calibration["decision"] == "shares"
    assert list(calibration["log_weights"]) == ["0", "1", "2"]
    assert card["retrained_from"] is None
    copy = trained_root / "data" / "06_models"
    assert json.loads((copy / "card.json").read_text(encoding="utf-8")) == card
    assert json.loads((copy / "parameters.json").read_text(encoding="utf-8")) == card["parameters"]


# Choices


def test_the_text_is_scored_by_stars(trained_root: Path) -> None:
    scores = artifact_of(trained_root).model_pipeline.named_steps["text"]
    assert scores.classes_.tolist() == [1, 2, 3, 4, 5]
    assert scores.class_of_.tolist() == [0, 0, 1, 2, 2]


def test_labels_follow_the_weights_of_the_card(trained_root: Path) -> None:
    tested = layer(trained_root, "07_model_output", "test_predictions.parquet")
    probabilities = tested[["proba_negative", "proba_neutral", "proba_positive"]].to_numpy()
    weights = list(artifact_of(trained_root).card["calibration"]["log_weights"].values())
    expected = (np.log(probabilities) + weights).argmax(axis=1)
    assert tested["prediction"].tolist() == expected.tolist()
    assert (expected != probabilities.argmax(axis=1)).any()


def test_calibration_can_be_left_out(train: Callable[..., Any], root: Path) -> None:
    train("training.model.calibration=null")
    artifact = artifact_of(root)
    assert artifact.card["calibration"] is None
    assert artifact.card["classifier"] == type(artifact.model_pipeline[-1]).__name__
    tested = layer(root, "07_model_output", "test_predictions.parquet")
    probabilities = tested[["proba_negative", "proba_neutral", "proba_positive"]].to_numpy()
    assert tested["prediction"].tolist() == probabilities.argmax(axis=1).tolist()


def test_neutral_is_told(cli: Cli, root: Path, fast: tuple[str, ...]) -> None:
    ended = cli(*fast, "pipeline=training", "logs.level=INFO", f"paths.root={root}")
    metrics = artifact_of(root).card["metrics"]
    neutral = metrics["per_class"]["neutral"]
    told = f"neutral precision {neutral['precision']:.3f}, recall {neutral['recall']:.3f}"
    assert told in ended.stderr
    assert f"calibration error {metrics['expected_calibration_error']:.3f}" in ended.stderr


def test_a_random_share(train: Callable[..., Any], root: Path) -> None:
    record = train("training.split.by=stratified", "training.split.test_share=0.5")
    assert record["stages"]["training/split"]["by"] == "stratified"
    assert record["stages"]["training/split"]["test"] == pytest.approx(len(snapshot(root)) / 2, 2)
    assert artifact_of(root).card["split"] == "stratified"


def test_only_the_newest_are_trained_on(train: Callable[..., Any], root: Path) -> None:
    record = train("training.max_rows=300", "training.thresholds.f1_macro=null")
    assert record["stages"]["training/label"]["read"] == 300
    split = layer(root, "05_model_input", "split.parquet")
    validated = layer(root, "02_intermediate", "validated.parquet").set_index("id")["date"]
    left_out = validated.drop(index=split["id"])
    assert left_out.max() <= validated[split["id"]].min()


def test_a_stratified_sample_keeps_the_shares(train: Callable[..., Any], root: Path) -> None:
    asked = ("training.max_rows=300", "training.sampling=stratified")
    record = train(*asked, "training.thresholds.f1_macro=null", "training.gate.max_drop=null")
    assert record["stages"]["training/label"]["read"] == 300
    split = layer(root, "05_model_input", "split.parquet")
    validated = layer(root, "02_intermediate", "validated.parquet").set_index("id")
    left_out = validated["date"].drop(index=split["id"])
    assert left_out.max() > validated.loc[split["id"], "date"].min()
    classes = pd.cut(validated["stars"], [0, 2, 3, 5], labels=False)
    whole, sample = (each.value_counts(normalize=True) for each in (classes, split["target"]))
    assert (whole - sample).abs().max() < 1 / 300
    assert artifact_of(root).card["rules"]["sampling"] == "stratified"


def test_another_store_can_be_trained_on(
    train: Callable[..., Any], root: Path, trained_root: Path
) -> None:
    (root / "data" / "04_feature" / "manifest.json").unlink()
    assert train(status=2)["error"].endswith("run pipeline=feature first.")
    train(f"training.features={trained_root / 'data' / '04_feature'}")
    assert artifact_of(root).card["metrics"] == artifact_of(trained_root).card["metrics"]


def test_training_twice_gives_the_same_model(
    train: Callable[..., Any], root: Path, trained_root: Path
) -> None:
    first = artifact_of(root)
    train()
    second = artifact_of(root)
    assert second.version != first.version
    assert second.card["metrics"] == first.card["metrics"]
    assert (root / "models" / "sentiment" / first.version / "card.json").is_file()


@pytest.mark.parametrize(
    ("balance", "expected"),
    [("none", None), ("balanced", [2 / 3, 2 / 3, 2]), ("sqrt", np.sqrt([2 / 3, 2 / 3, 2]))],
)
def test_weights(balance: Literal["none", "balanced", "sqrt"], expected: Any) -> None:
    job = TrainingJob(model=Pipeline([("none", "passthrough")]), balance=balance)
    target = np.array([0, 0, 0, 1, 1, 1, 2])
    weights = job._weights(target)
    if expected is None:
        assert weights is None
    else:
        assert weights is not None
        by_class = [weights[target == label] for label in range(3)]
        ratios = [each[0] / by_class[0][0] for each in by_class]
        assert ratios == pytest.approx([1, 1, 3] if balance == "balanced" else [1, 1, 3**0.5])


# Labels


@pytest.fixture
def messages(
    cli: Cli,
    fast: tuple[str, ...],
    tmp_path: Path,
    reviews: list[dict[str, Any]],
    last_run: LastRun,
) -> Callable[..., dict[str, Any]]:
    """Run features and training on reviews as messages, changed by a function."""
    rows = pd.DataFrame(reviews[:200])[["review_id", "text", "stars"]]
    whole = rows.rename(columns={"review_id": "id", "stars": "rating"})

    def run(change: Callable[[pd.DataFrame], pd.DataFrame], status: int = 0) -> dict[str, Any]:
        path = tmp_path / "messages.csv"
        change(whole.copy()).to_csv(path, index=False)
        base = (*fast, "dataset=messages", f"dataset.path={path}", f"paths.root={tmp_path / 'm'}")
        ended = cli(*base, "pipeline=feature")
        assert ended.status == 0, ended.stderr
        computed = last_run(tmp_path / "m")["stages"]["feature/store"]["computed"]
        ended = cli(
            *base,
            "pipeline=training",
            "training.thresholds.f1_macro=null",
            "training.thresholds.recall_macro=null",
            "training.model.learn.text=null",
        )
        assert ended.status == status, ended.stderr
        return {**last_run(tmp_path / "m"), "computed": computed}

    return run


def test_a_changed_rating_is_trained_on_though_nothing_is_computed(
    messages: Callable[..., Any], tmp_path: Path
) -> None:
    messages(lambda rows: rows)
    before = artifact_of(tmp_path / "m").card["class_shares"]
    record = messages(lambda rows: rows.assign(rating=6 - rows["rating"]))
    after = artifact_of(tmp_path / "m").card["class_shares"]
    assert record["computed"] == 0
    assert after["negative"] == pytest.approx(before["positive"], abs=0.05)
    assert after["negative"] > before["negative"] + 0.1


def test_a_label_is_taken_as_the_class(messages: Callable[..., Any], tmp_path: Path) -> None:
    def labelled(rows: pd.DataFrame) -> pd.DataFrame:
        label = pd.Series(["negative", "Neutral", "2", "positive"] * 50)
        return rows.assign(label=label, rating=np.nan)

    messages(labelled)
    split = layer(tmp_path / "m", "05_model_input", "split.parquet")
    assert split["target"].tolist() == [0, 1, 2, 2] * 50


def test_a_message_without_a_class_is_told(messages: Callable[..., Any], tmp_path: Path) -> None:
    record = messages(lambda rows: rows.assign(rating=rows["rating"].where(rows.index % 10 > 0)))
    stage = record["stages"]["training/label"]
    assert (stage["read"], stage["delivered"], stage["rejected"]) == (200, 180, 20)
    rejected = layer(tmp_path / "m", "05_model_input", "rejected.parquet")
    assert rejected["row"].tolist() == list(range(1, 201, 10))
    assert set(rejected["check"]) == {"not missing"}
    assert rejected["id"].notna().all()


def test_a_class_with_too_few_messages(messages: Callable[..., Any]) -> None:
    record = messages(lambda rows: rows.assign(rating=5), status=2)
    assert "each class needs at least 10 labelled rows" in record["error"]
    assert "0 negative, 0 neutral, 200 positive" in record["error"]


# The gate, and models in use


def test_a_model_below_the_gate_replaces_nothing(train: Callable[..., Any], root: Path) -> None:
    before = artifact_of(root).version
    card = root / "data" / "06_models" / "card.json"
    reporting = root / "data" / "08_reporting"
    kept = {path: path.read_bytes() for path in (card, reporting / "metrics.json")}
    record = train("training.thresholds.f1_macro=0.99", status=1)
    assert "below training.thresholds.f1_macro 0.990" in record["error"]
    own = reporting / "runs" / record["run_id"] / "metrics.json"
    assert json.loads(own.read_text(encoding="utf-8"))["f1_macro"] < 0.99
    assert artifact_of(root).version == before
    assert {path: path.read_bytes() for path in kept} == kept
    assert len(list((root / "models" / "sentiment").glob("*/card.json"))) == 1


def test_the_same_model_again_is_kept_for_inspection(
    cli: Cli, root: Path, fast: tuple[str, ...], last_run: LastRun
) -> None:
    before = artifact_of(root)
    card = root / "data" / "06_models" / "card.json"
    copied = card.read_bytes()
    ended = cli(*fast, "pipeline=full", f"paths.root={root}")
    assert ended.status == 0, ended.stderr
    assert f"{before.version} stays in use" in ended.stderr
    assert artifact_of(root).version == before.version
    record, registry = last_run(root), Registry(root / "models", "sentiment")
    comparison = record["comparison"]
    held_out = layer(root, "09_inference", "new", "held_out.parquet")
    assert (comparison["replaces"], comparison["n_seen"]) == (False, 0)
    assert comparison["n_rows"] == len(held_out)
    assert comparison["champion"] == before.version == record["model_version"]
    (new,) = set(registry.versions()) - {before.version}
    assert registry.card(new)["comparison"] == comparison
    assert [line["event"] for line in registry.ledger()] == ["promoted", "held"]
    assert registry.ledger()[-1]["version"] == new
    assert card.read_bytes() == copied
    predicted = layer(root, "09_inference", "predictions.parquet")
    assert set(predicted["model_version"]) == {before.version}
    assert set(predicted["id"]) <= set(held_out["id"])


def test_a_worse_model_is_kept_for_inspection(
    cli: Cli, root: Path, fast: tuple[str, ...], last_run: LastRun
) -> None:
    before = artifact_of(root).version
    thresholds = ("training.thresholds.f1_macro=null", "training.thresholds.recall_macro=null")
    base = (*fast, "pipeline=training", f"paths.root={root}", "training.model.learn.text=null")
    ended = cli(*base, *thresholds, "classifier=prior", "training.model.calibration=null")
    assert ended.status == 0, ended.stderr
    assert "loses more F1 macro than training.gate.max_drop=0.01" in ended.stderr
    assert artifact_of(root).version == before
    comparison = last_run(root)["comparison"]
    assert comparison["high"] < -0.01
    assert len(Registry(root / "models", "sentiment").versions()) == 2


def test_features_made_in_another_way_are_refused(train: Callable[..., Any], root: Path) -> None:
    path = root / "data" / "04_feature" / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"fingerprint": "of another version"}), encoding="utf-8")
    assert "run pipeline=feature again" in train(status=2)["error"]


def test_a_retraining_keeps_the_algorithm(
    cli: Cli, root: Path, fast: tuple[str, ...], last_run: LastRun
) -> None:
    before = artifact_of(root)
    ended = cli(
        *fast,
        "pipeline=inference",
        "pipeline.on_skew=retrain",
        "inference.shares.low=0.4",
        "training.gate.max_drop=null",
        "classifier=prior",
        "embedder=none",
        "feature.steps.text_statistics=null",
        f"paths.root={root}",
    )
    assert ended.status == 3, ended.stderr
    after = artifact_of(root)
    assert after.card["retrained_from"] == before.version
    assert after.card["classifier"] == before.card["classifier"]
    assert after.card["parameters"] == before.card["parameters"]
    assert after.card["features"]["fingerprint"] == before.card["features"]["fingerprint"]
    assert after.card["metrics"] == before.card["metrics"]
    record = last_run(root)
    assert record["retrains"] == 1
    assert record["stages"]["feature/store"]["computed"] == 0
    assert "inference/predict#2" in record["stages"]
    assert set(layer(root, "09_inference", "predictions.parquet")["model_version"]) == {
        after.version
    }


def test_a_retraining_keeps_the_rules(cli: Cli, root: Path, fast: tuple[str, ...]) -> None:
    before = artifact_of(root)
    ended = cli(
        *fast,
        "pipeline=inference",
        "pipeline.on_skew=retrain",
        "inference.shares.low=0.4",
        "training.gate.max_drop=null",
        "training.balance=balanced",
        "training.model.calibration=null",
        "training.label.negative=1",
        "training.split.test_share=0.5",
        "training.max_rows=300",
        "seed=99",
        f"paths.root={root}",
    )
    assert ended.status == 3, ended.stderr
    assert "No file has changed" in ended.stderr
    after = artifact_of(root)
    assert after.version != before.version
    assert after.card["rules"] == before.card["rules"]


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.max_rows=0", "training.max_rows must be at least 1"),
        ("training.thresholds.f1_macro=40", "must be a number between 0 and 1"),
        ("inference.shares.min_rows=-5", "inference.shares.min_rows must be at least 0"),
        ("pipeline.max_retrains=-1", "pipeline.max_retrains must be at least 0"),
        ("inference.source=/nowhere/new.csv", "/nowhere/new.csv does not exist"),
    ],
)
def test_a_value_out_of_range_is_told_before_the_first_row_is_read(
    cli: Cli, fast: tuple[str, ...], tmp_path: Path, override: str, complaint: str
) -> None:
    ended = cli(*fast, "pipeline=full", override, f"paths.root={tmp_path}")
    assert ended.status == 2
    assert complaint in ended.stderr
    assert not (tmp_path / "data" / "04_feature").exists()


def test_texts_without_a_word_in_common_cannot_train(
    cli: Cli, fast: tuple[str, ...], tmp_path: Path
) -> None:
    rows = pd.DataFrame(
        {"text": [f"w{i}" for i in range(120)], "rating": [1, 3, 5] * 40, "id": range(120)}
    )
    rows.to_csv(tmp_path / "unique.csv", index=False)
    options = ["dataset=messages", f"dataset.path={tmp_path / 'unique.csv'}"]
    ended = cli(*fast, "pipeline=full", *options, f"paths.root={tmp_path}")
    assert ended.status == 2, ended.stderr
    assert "cannot be fitted to these rows" in ended.stderr
