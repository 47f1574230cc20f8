"""The contest: splits share no text, measures are what their names say, the report renders."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from benchmarks.quality import __main__ as command
from benchmarks.quality import measure, ours, report
from benchmarks.quality.data import (
    DataSet,
    Split,
    classes,
    further_sets,
    same,
    splits_of,
    text_set,
)
from benchmarks.quality.rivals import BASELINE, RIVALS, Rows


def some_set(name: str, n_rows: int, offset: int = 0) -> DataSet:
    rng = np.random.default_rng(offset)
    words = np.array(["bad", "fine", "good"])
    stars = rng.integers(1, 6, n_rows)
    texts = [
        f"message {number + offset} was {words[kind]}, {words[kind]}"
        for number, kind in enumerate(classes(stars))
    ]
    rows = pd.DataFrame({"text": texts, "rating": stars})
    return text_set(name, rows, text="text", rating="rating")


def test_stars_become_classes() -> None:
    assert classes([1, 2, 2.5, 3, 4, 5]).tolist() == [0, 0, 1, 1, 2, 2]


def test_repeated_and_unusable_rows_are_dropped() -> None:
    kept = [f"{kind} {i}" for kind in "abc" for i in range(10)]
    stars: list[Any] = [1] * 10 + ["neutral"] * 10 + ["5"] * 10
    rows = pd.DataFrame(
        {
            "text": [*kept, "A  0", None, " ", "no stars", "six stars"],
            "rating": [*stars, 5, 5, 5, None, 6],
        }
    )
    found = text_set("some", rows, text="text", rating="rating")
    assert found.texts == kept
    assert np.bincount(found.y).tolist() == [10, 10, 10]


def test_a_missing_column_and_too_few_rows_are_told() -> None:
    rows = pd.DataFrame({"text": ["a"], "stars": [1]})
    with pytest.raises(SystemExit, match="must have the columns \\['rating'\\]"):
        text_set("some", rows, text="text", rating="rating")
    with pytest.raises(SystemExit, match="at least 10 different texts of each class"):
        text_set("some", rows, text="text", rating="stars")


def test_no_text_is_on_both_sides_of_a_split() -> None:
    one, other = some_set("one", 120), some_set("other", 90, offset=60)
    shared = set(map(same, one.texts or [])) & set(map(same, other.texts or []))
    assert shared
    splits = list(splits_of([one, other], seed=3))
    assert [split.group for split in splits] == [
        *["one, 5 folds"] * 5, *["other, 5 folds"] * 5, "one → other", "other → one",
    ]  # fmt: skip
    for split in splits:
        train, test = (
            {same((each.texts or [])[i]) for i in rows}
            for each, rows in ((split.train_set, split.train), (split.test_set, split.test))
        )
        assert train
        assert test
        assert not train & test
    folds = [split.test for split in splits if split.group == "one, 5 folds"]
    assert sorted(np.concatenate(folds).tolist()) == list(range(len(one.y)))


def test_further_files_by_repetition_and_by_commas(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        paths.append(str(tmp_path / f"{name}.csv"))
        found = some_set(name, 100, offset=len(paths) * 1000)
        pd.DataFrame({"t": found.texts, "r": found.stars}).to_csv(paths[-1])
    repeated = list(further_sets(paths, ["t"], ["r", "r"]))
    joined = list(further_sets([",".join(paths)], ["t"], ["r"]))
    assert [each.name for each in repeated] == ["a", "b"]
    assert [each.digest for each in repeated] == [each.digest for each in joined]
    with pytest.raises(SystemExit, match="--text must be given once"):
        list(further_sets(paths[:1], ["t", "t"], ["r"]))


def test_measures_against_hand_values() -> None:
    y = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    predicted = np.array([0, 1, 1, 2, 2, 2, 2, 2])
    probabilities = np.array([[0.6, 0.3, 0.1]] * 8)
    found = measure.metrics(y, predicted, probabilities)
    assert found["precision_neutral"] == 0.5
    assert found["recall_neutral"] == 0.5
    assert found["f1_negative"] == pytest.approx(2 / 3)
    assert found["f1_positive"] == pytest.approx(8 / 9)
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1 / 2 + 8 / 9) / 3)
    assert found["f1_weighted"] == pytest.approx(2 / 3 / 4 + 1 / 2 / 4 + 8 / 9 / 2)
    assert found["neutral_excess"] == 0
    assert found["share_gap"] == pytest.approx(1 / 8)
    logs = -np.log([0.6, 0.6, 0.3, 0.3, 0.1, 0.1, 0.1, 0.1])
    assert found["log_loss"] == pytest.approx(logs.mean())
    # Sure by 0.6 of class 0, which 2 of 8 rows have.
    assert found["calibration_error"] == pytest.approx(0.6 - 0.25)


def test_calibration_error_weighs_the_bins() -> None:
    y = np.array([0, 0, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.9, 0.1, 0], [0.5, 0.3, 0.2]])
    assert measure.calibration_error(y, probabilities) == pytest.approx(0.1 * 2 / 3 + 0.5 / 3)


def test_true_probabilities_have_errors_by_chance() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet([4, 1, 1], 400)
    predicted = probabilities.argmax(axis=1)
    labels = [np.array([rng.choice(3, p=row) for row in probabilities]) for _ in range(20)]
    errors = [measure.calibration_error(y, probabilities) for y in labels]
    assert measure.chance_error(probabilities) == pytest.approx(np.mean(errors), rel=0.15)
    gaps = [measure.share_gap(y, predicted) for y in labels]
    assert measure.chance_gap(predicted, probabilities) == pytest.approx(np.mean(gaps), rel=0.15)
    sure = np.eye(3)[rng.integers(0, 3, 50)]
    assert measure.chance_error(sure) == 0
    assert measure.chance_gap(sure.argmax(axis=1), sure) == 0


def test_bins_of_several_sets_add_up_to_those_of_all_rows() -> None:
    rng = np.random.default_rng(2)
    probabilities = rng.dirichlet([4, 1, 1], 900)
    y = np.array([rng.choice(3, p=row) for row in probabilities])
    parts = [measure.bins_of(y[i : i + 300], probabilities[i : i + 300]) for i in (0, 300, 600)]
    error, chance = measure.error_of_bins(np.sum(parts, axis=0))
    assert error == pytest.approx(measure.calibration_error(y, probabilities))
    assert chance == pytest.approx(measure.chance_error(probabilities), rel=0.1)


def test_the_folds_are_reported_together_where_a_rival_met_all_of_them() -> None:
    labels = [np.array([0, 1, 2]), np.array([2, 2, 1])]
    probabilities = np.array([[0.8, 0.1, 0.1]] * 3)
    results = [
        result(BASELINE, "one, 2 folds", number, 0.6)
        | measure.metrics(y, np.array([0, 1, 2]), probabilities)
        for number, y in enumerate(labels)
    ]
    results += [result("SetFit", "one, 2 folds", 0, 0.7), result(BASELINE, "one → two", 0, 0.5)]
    (table,) = [
        part
        for part in report.markdown(results, [], settings="").split("\n\n")
        if "by chance | p" in part
    ]
    # Sure by 0.8 of class 0, which 1 of 6 rows has; 2, 2 and 2 predicted, 1, 2 and 3 true.
    chance = np.sqrt(2 / np.pi * 6 * 0.16) / 6
    assert table.splitlines()[2:] == [
        f"| {BASELINE} | 1 | {0.8 - 1 / 6:.3f} | {chance:.3f} | +16.7 | +0.0 | -16.7 |"
    ]


@pytest.mark.parametrize(
    "name", ["majority class", BASELINE, "TF-IDF words + characters, linear SVM"]
)
def test_a_rival_learns(name: str) -> None:
    found = some_set("some", 240)
    (split, *_) = splits_of([found], seed=0)
    texts = found.texts or []
    predict = RIVALS[name].fit(
        Rows([texts[i] for i in split.train], y=found.y[split.train], stars=found.stars)
    )
    predicted, probabilities = predict(Rows([texts[i] for i in split.test]))
    assert probabilities.shape == (len(split.test), 3)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    right = (predicted == found.y[split.test]).mean()
    assert right < 0.6 if name == "majority class" else right > 0.95


def result(rival: str, group: str, number: int, f1: float) -> dict[str, Any]:
    measures = measure.metrics(
        np.array([0, 1, 2]), np.array([0, 1, 2]), np.array([[0.8, 0.1, 0.1]] * 3)
    )
    return {
        "rival": rival,
        "weight": "light",
        "group": group,
        "split": number,
        "seed": 0,
        "real": True,
        "n_train": 1000,
        "n_test": 3,
        **measures,
        "f1_macro": f1,
        "fit_seconds": 1.0,
        "rows_per_second": 2000.0,
        "peak_mib": 300.0,
        "versions": {"Python": "3.11"},
    }


def test_the_report_pairs_splits_and_says_what_was_not_run(tmp_path: Path) -> None:
    results = [
        result(BASELINE, "one, 5 folds", 0, 0.60),
        result(BASELINE, "one, 5 folds", 1, 0.70),
        result("ours: default", "one, 5 folds", 0, 0.65),
        result("ours: default", "one, 5 folds", 1, 0.73),
        result("SetFit", "one, 5 folds", 1, 0.72),
        result(BASELINE, "one → two", 0, 0.5),
    ]
    missing = [
        ("FLAML AutoML", "one, 5 folds", "no time left"),
        ("FLAML AutoML", "one, 5 folds", "no time left"),
        ("FLAML AutoML", "one → two", "no time left"),
    ]
    told = report.write(results, missing, tmp_path, settings="a test")
    rows = report.frame_of(results)
    gains = rows.groupby("rival")["f1_macro_gain"].mean()
    assert gains["ours: default"] == pytest.approx(0.04)
    assert gains["SetFit"] == pytest.approx(0.02)
    assert "| **ours: default** | 2 | +0.000 (≥ +0.000) | +0.040 (≥ +0.030) |" in told
    assert "| FLAML AutoML | one, 5 folds: 2 splits, one → two: 1 split | no time left |" in told
    assert {path.name for path in tmp_path.iterdir()} == {
        "quality.md",
        "quality.parquet",
        "accuracy_speed.png",
        "accuracy_speed_one_5_folds.png",
        "accuracy_speed_one_two.png",
        "reliability.png",
    }
    assert pd.read_parquet(tmp_path / "quality.parquet")["rival"].tolist() == rows["rival"].tolist()


def test_light_rivals_meet_all_splits_and_heavy_ones_the_first_of_each_group() -> None:
    sets = [some_set("one", 120), some_set("two", 90, offset=500)]
    splits = [split for seed in (0, 1) for split in splits_of(sets, seed)]
    pairs = measure.schedule([*RIVALS.values(), *ours.entries().values()], splits)
    light = [rival.weight == "light" for rival, _ in pairs]
    rounds = [list(same) for _, same in groupby(light)]
    assert [same[0] for same in rounds] == [True, False, True, False]
    assert {split.seed for _, split in pairs[: len(rounds[0])]} == {0}
    others = [rival.weight for rival, _ in pairs[len(rounds[0]) :][: len(rounds[1])]]
    assert [weight for weight, _ in groupby(others)] == ["medium", "heavy", "variant"]

    def met(name: str) -> list[tuple[str, int, int]]:
        return [(s.group, s.number, s.seed) for rival, s in pairs if rival.name == name]

    assert len(met(BASELINE)) == len(splits) == 24
    groups = ("one, 5 folds", "two, 5 folds", "one → two", "two → one")
    assert met("fine-tuned MiniLM") == [(group, 0, 0) for group in groups]


def test_what_is_for_reference_ends_the_first_round() -> None:
    sets = [some_set("one", 120), some_set("two", 90, offset=500)]
    made_up = replace(some_set("made up", 90, offset=900), real=False)
    splits = [split for seed in (0, 1) for split in splits_of([*sets, made_up], seed)]
    rivals = [RIVALS[BASELINE], RIVALS["fine-tuned MiniLM"]]
    told = [
        (rival.weight, split.group, split.seed) for rival, split in measure.schedule(rivals, splits)
    ]
    place = [group.startswith("made up") for _, group, _ in told].index(True)
    assert told[place - 1] == ("heavy", "one, 5 folds", 0)
    assert told[place + 1] == ("light", "one, 5 folds", 1)


def test_heavy_rivals_meet_every_split_of_a_seed_where_that_is_asked_for() -> None:
    sets = [some_set("one", 120), some_set("two", 90, offset=500)]
    splits = [split for seed in (0, 1) for split in splits_of(sets, seed)]
    pairs = measure.schedule([RIVALS["fine-tuned MiniLM"]], splits, every_split=True)
    found = [(split.group, split.number) for _, split in pairs]
    firsts = [("one, 5 folds", 0), ("two, 5 folds", 0), ("one → two", 0), ("two → one", 0)]
    further = [(f"{name}, 5 folds", number) for number in range(1, 5) for name in ("one", "two")]
    assert found == firsts + further
    assert {split.seed for _, split in pairs} == {0}


def test_a_result_is_kept_and_time_is_minded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (split, *_) = splits_of([some_set("some", 120)], seed=0)
    majority = RIVALS["majority class"]
    with pytest.raises(measure.OutOfTimeError, match="no time left"):
        measure.Bench(tmp_path, seconds=0, budget=1).run(majority, split)
    bench = measure.Bench(tmp_path, seconds=300, budget=1)
    first = bench.run(majority, split)
    assert first["peak_mib"] > 10
    assert first["n_test"] == len(split.test)
    monkeypatch.setattr(bench, "_work", None)
    assert bench.run(majority, split) == first
    renamed = replace(split, group="the same under another name")
    assert bench.run(majority, renamed) == first | {"group": renamed.group}


def test_what_fails_is_told_without_paths() -> None:
    said = "Traceback:\n  File x\nOSError: no file /home/me/model.bin, see https://x.org/y\n"
    assert measure.reason(said) == "OSError: no file model.bin, see (address)"


def test_every_embedder_meets_every_classifier() -> None:
    entries = ours.entries()
    assert "ours: default" in entries
    for embedder in ours.options("embedder"):
        for classifier in ours.options("classifier"):
            assert f"ours: {embedder} + {classifier}" in entries
    assert ours.entry_digest(()) != ours.entry_digest(("classifier=xgboost",))


def test_our_entry_is_labelled_as_inference_labels() -> None:
    found = some_set("some", 240)
    (split, *_) = splits_of([found], seed=0)
    overrides = ("embedder=hashing", "classifier=logistic")
    X, seconds = ours.frame_of(found.texts or [], overrides)
    assert seconds > 0
    assert len(X) == len(found.y)
    train = X.iloc[split.train].reset_index(drop=True)
    predict = ours.entry(overrides)(Rows([], train, y=found.y[split.train]))
    predicted, probabilities = predict(Rows([], X.iloc[split.test].reset_index(drop=True)))
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert (predicted == found.y[split.test]).mean() > 0.95


def test_only_takes_parts_of_names_and_keeps_the_baseline() -> None:
    assert [each.name for each in command.chosen(["floret"])] == [
        BASELINE,
        "fastText-style (floret)",
    ]
    with pytest.raises(SystemExit, match="none has \\['no such'\\]"):
        command.chosen(["no such"])


def test_a_part_of_a_set_keeps_its_shares() -> None:
    whole = some_set("some", 200)
    part = whole.first(100)
    assert len(part.texts or []) == 100
    assert set(part.texts or []) < set(whole.texts or [])
    assert isinstance(next(splits_of([part], 0)), Split)
    assert whole.first(500) is whole
