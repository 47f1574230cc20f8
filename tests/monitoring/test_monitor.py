"""The verdict: rarely a false alarm, rarely a missed change; and where it is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from batch_nlp.artifact import card_digest
from batch_nlp.errors import InputError
from batch_nlp.monitoring.monitor import MONITORING, Monitor

N_BATCHES = 200
N_ROWS = 500


def alarms(judged: Any, look: Any, weights: Any = None) -> float:
    """Give the share of bootstrap batches that raise the alarm."""
    rng, monitor, n = np.random.default_rng(0), Monitor(), len(look.predicted)
    shares = None if weights is None else weights / weights.sum()
    drawn = (rng.choice(n, N_ROWS, p=shares) for _ in range(N_BATCHES))
    found = [monitor.judge(look.rows(rows).seen(), judged.reference).drifting for rows in drawn]
    return sum(map(bool, found)) / N_BATCHES


def test_unchanged_messages_raise_few_false_alarms(judged: Any) -> None:
    assert alarms(judged, judged.look()) < 0.05


def test_two_samples_of_the_same_messages_raise_few_false_alarms(judged: Any) -> None:
    look, monitor = judged.look(), Monitor(min_rows=1)
    rng, n = np.random.default_rng(1), len(look.predicted)
    found = []
    for _ in range(N_BATCHES):
        order = rng.permutation(n)
        held_out = look.rows(order[: n // 2]).seen()
        reference = replace(judged.reference, held_out=held_out)
        found.append(
            any(
                each.alarm
                for each in monitor.judge(look.rows(order[n // 2 :]).seen(), reference).measures
            )
        )
    assert np.mean(found) < 0.05


def test_a_class_three_times_as_frequent_is_noticed(judged: Any) -> None:
    of_class = judged.target == 0
    share = of_class.mean()
    assert 3 * share < 1
    weights = np.where(of_class, 3 * (1 - share) / (1 - 3 * share), 1.0)
    assert alarms(judged, judged.look(), weights) > 0.95


def test_texts_of_another_kind_are_noticed(judged: Any) -> None:
    words = ["parcel", "invoice", "refund", "login", "password", "router", "firmware", "courier"]
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(words, 12)) for _ in range(len(judged.features))]
    look = judged.look_at(texts)
    assert alarms(judged, look) > 0.95
    drifting = Monitor(min_rows=1).judge(look.seen(), judged.reference).drifting
    assert {"text.unknown_words", "embedding"} <= set(drifting)


def test_few_rows_are_not_judged_and_how_many_can_be_set(judged: Any) -> None:
    seen = judged.look_at(["unheard of"] * 60).seen()
    few = Monitor().judge(seen, judged.reference)
    assert (few.verdict, few.drifting) == ("too few rows", [])
    enough = Monitor(min_rows=60).judge(seen, judged.reference)
    assert enough.line.startswith("drifting: ")
    assert "text.unknown_words" in enough.line


def test_empty_texts_and_unseen_kinds_are_told_by_their_share(judged: Any) -> None:
    features = judged.features.assign(city="Atlantis")
    features.loc[features.index[::2], "clean_text"] = ""
    seen = judged.reference.look(features, judged.predicted, judged.watch.words).seen()
    verdict = Monitor(min_rows=1).judge(seen, judged.reference)
    by_name = {each.measure: each for each in verdict.measures}
    assert by_name["unseen.city"].value == 1
    assert by_name["text.empty"].value == pytest.approx(0.5, abs=0.01)
    assert {"unseen.city", "text.empty"} <= set(verdict.drifting)
    calm = Monitor(min_rows=1, share=1.1).judge(seen, judged.reference)
    assert not {"unseen.city", "text.empty"} & set(calm.drifting)


def test_a_fall_of_the_estimated_f1_is_noticed(judged: Any) -> None:
    look = judged.look()
    unsure = replace(look, probabilities=np.full_like(look.probabilities, 1 / 3))
    verdict = Monitor(min_rows=1).judge(unsure.seen(), judged.reference)
    assert verdict.drifting[0] == "estimated F1"
    assert verdict.estimates["f1_macro"].high < verdict.measured["f1_macro"]


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"min_rows": 0}, "inference.monitor.min_rows must be at least 1, got 0"),
        ({"false_alarms": 0.0}, "false_alarms must be between 0 and 1"),
        ({"psi": -0.1}, "inference.monitor.psi must be at least 0"),
        ({"f1_drop": float("nan")}, "inference.monitor.f1_drop must be at least 0"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(parameter: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Monitor(**parameter)


# What a run leaves


@pytest.fixture
def infer(
    cli: Callable[..., Any],
    root: Path,
    fast: tuple[str, ...],
    last_run: Callable[[Path], dict[str, Any]],
) -> Callable[..., tuple[dict[str, Any], str]]:
    """Run ``pipeline=inference`` and give its record and its messages."""

    def run(*overrides: str) -> tuple[dict[str, Any], str]:
        ended = cli(*fast, "pipeline=inference", f"paths.root={root}", *overrides)
        assert ended.status == 0, ended.stderr
        return last_run(root), ended.stderr

    return run


def test_each_run_adds_a_row_and_its_record_has_the_same(
    infer: Callable[..., Any], root: Path
) -> None:
    path = root / "data" / "08_reporting" / "monitoring.parquet"
    first = pq.read_table(path)
    assert first.schema.equals(MONITORING)
    assert first.num_rows == 1
    record, _ = infer("inference.monitor.min_rows=1", "engine.batch_rows=50")
    both = pq.read_table(path)
    assert both.slice(0, 1).equals(first)
    assert both.num_rows == 2
    row = both.to_pylist()[1]
    facts = record["monitoring"]
    assert (row["run_id"], row["verdict"]) == (record["run_id"], facts["verdict"])
    assert facts["verdict"] == "fits"
    # In batches, as in one piece.
    before = both.to_pylist()[0]
    for name in ("n_rows", "mean_confidence", "unknown_words", "estimated_f1_macro_low"):
        assert row[name] == pytest.approx(before[name], abs=1e-5)
    assert [each["measure"] for each in row["measures"]] == [
        each["measure"] for each in facts["measures"]
    ]


def test_it_can_be_switched_off(infer: Callable[..., Any], root: Path) -> None:
    record, said = infer("inference.monitor.enabled=false", "logs.level=INFO")
    assert record["monitoring"] is None
    assert "Monitoring" not in said
    assert "no reference" not in said
    rows = pd.read_parquet(root / "data" / "08_reporting" / "monitoring.parquet")
    assert record["run_id"] not in set(rows["run_id"])


def test_a_model_without_a_reference_is_used_and_that_is_said(
    infer: Callable[..., Any], root: Path, delivered: Callable[[Path], pd.DataFrame]
) -> None:
    version = (root / "models" / "sentiment" / "current").read_text(encoding="utf-8").strip()
    place = root / "models" / "sentiment" / version
    (place / "reference.json").unlink()
    card = json.loads((place / "card.json").read_text(encoding="utf-8"))
    del card["files"]["reference.json"]
    card["sha256"] = card_digest(card)
    (place / "card.json").write_text(json.dumps(card), encoding="utf-8")
    before = delivered(root).drop(columns="run_id")
    record, said = infer()
    assert record["monitoring"] is None
    assert said.count("has no reference to monitor against") == 1
    pd.testing.assert_frame_equal(delivered(root).drop(columns="run_id"), before)


def test_a_changed_reference_is_refused_like_any_other_file(
    cli: Callable[..., Any], root: Path, fast: tuple[str, ...]
) -> None:
    path = next((root / "models" / "sentiment").glob("*/reference.json"))
    path.write_text(path.read_text(encoding="utf-8").replace("0", "1", 1), encoding="utf-8")
    ended = cli(*fast, "pipeline=inference", f"paths.root={root}")
    assert ended.status == 1
    assert "reference.json was changed after it was saved" in ended.stderr


def test_drifting_messages_are_told_and_delivered(
    infer: Callable[..., Any], root: Path, tmp_path: Path
) -> None:
    shutil.rmtree(root / "data" / "09_inference")
    path = tmp_path / "new.csv"
    rows = pd.DataFrame({"id": range(260), "text": [f"router firmware {n}" for n in range(260)]})
    rows.to_csv(path, index=False)
    record, said = infer(
        "dataset=messages", f"inference.source={path}", "inference.shares.min_rows=1000"
    )
    assert record["exit_status"] == 0
    assert record["monitoring"]["verdict"] == "drifting"
    assert "Monitoring: drifting: " in said
