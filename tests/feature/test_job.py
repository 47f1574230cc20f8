"""Rows to features to store, run by run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batch_nlp.embedders import Encoded, HashingEmbedder
from batch_nlp.sample import SampleFiles
from batch_nlp.tables import file_digest

LastRun = Callable[[Path], dict[str, Any]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def features(
    cli: Callable[..., Any], home: Path, tmp_path: Path, last_run: LastRun
) -> Callable[..., dict[str, Any]]:
    """Run ``pipeline=feature`` on a messages file, and give its record."""

    def run(rows: Sequence[dict[str, Any]], *overrides: str, status: int = 0) -> dict[str, Any]:
        path = tmp_path / "messages.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
        ended = cli(
            "pipeline=feature",
            "dataset=messages",
            f"dataset.path={path}",
            f"paths.root={home}",
            "embedder=hashing",
            "logs.level=WARNING",
            *overrides,
        )
        assert ended.status == status, ended.stderr
        return last_run(home)

    return run


def manifest(home: Path) -> dict[str, Any]:
    path = home / "data" / "04_feature" / "manifest.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def snapshot(home: Path) -> pd.DataFrame:
    return pd.read_parquet(home / "data" / "04_feature" / manifest(home)["snapshot"])


def usage(record: dict[str, Any]) -> tuple[int, int, int]:
    stages = record["stages"]
    store = stages["feature/store"]
    return store["computed"], store["reused"], stages["feature/embed"]["embedded_texts"]


ROWS = [
    {"id": "a", "text": "good food", "rating": 5, "date": "2020-01-01"},
    {"id": "b", "text": "bad food", "rating": 1, "date": "2020-01-02"},
    {"id": "c", "text": "good food", "rating": 4, "date": "2020-01-03"},
]


def changed(**change: Any) -> list[dict[str, Any]]:
    return [ROWS[0] | change, *ROWS[1:]]


def test_a_second_run_computes_nothing(features: Callable[..., Any], home: Path) -> None:
    assert usage(features(ROWS)) == (3, 0, 2)
    first = snapshot(home)
    assert usage(features(ROWS)) == (0, 3, 0)
    pd.testing.assert_frame_equal(snapshot(home), first)
    assert len(list((home / "data" / "04_feature" / "snapshots").iterdir())) == 2


def test_a_changed_text_is_computed_again(features: Callable[..., Any], home: Path) -> None:
    features(ROWS)
    assert usage(features(changed(text="cold food"))) == (1, 2, 1)


def test_a_changed_rating_is_not_but_counts(features: Callable[..., Any], home: Path) -> None:
    features(ROWS)
    assert usage(features(changed(rating=2))) == (0, 3, 0)
    assert snapshot(home)["stars"].tolist() == [2, 1, 4]


def test_a_snapshot_holds_the_last_run_and_nothing_else(
    features: Callable[..., Any], home: Path
) -> None:
    features(ROWS)
    features(ROWS[1:])
    assert snapshot(home)["id"].tolist() == ["b", "c"]
    assert manifest(home)["n_rows"] == 2
    new = [{"id": "z", "text": "new"}]
    features(new)
    assert snapshot(home)["id"].tolist() == ["z"]
    assert not manifest(home)["dated"]


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_each_distinct_text_is_embedded_once(
    features: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    asked: list[str] = []
    encode = HashingEmbedder.encode

    def counting(self: HashingEmbedder, texts: Sequence[str]) -> Encoded:
        asked.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(HashingEmbedder, "encode", counting)
    texts = ["good food", "bad food", " good  food ", "good food", "BAD food", "bad food"]
    rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    record = features(rows, f"engine.batch_rows={batch_rows}")
    assert sorted(asked) == ["BAD food", "bad food", "good food"]
    computed, reused, embedded = usage(record)
    assert (computed + reused, embedded) == (6, 3)


def test_the_manifest_tells_what_was_read_and_how(
    features: Callable[..., Any], home: Path, tmp_path: Path
) -> None:
    record = features(ROWS)
    found = manifest(home)
    path = tmp_path / "messages.csv"
    assert found["sources"] == record["sources"] == {str(path): file_digest(path)}
    assert found["run_id"] == record["run_id"]
    assert found["n_rows"] == 3
    assert found["dated"]
    assert found["n_dims"] == 32
    assert {"clean_text", "embed"} <= set(found["steps"])
    assert found["fields"]["stars"]["kind"] == "stars"
    assert not {"stars", "label", "id"} & set(found["columns"])


def test_layers_can_be_looked_at(features: Callable[..., Any], home: Path) -> None:
    features([*ROWS, {"id": "d", "text": "", "rating": 3}], "engine.batch_rows=2")
    data = home / "data"
    extracted = pd.read_parquet(data / "02_intermediate" / "extracted.parquet")
    validated = pd.read_parquet(data / "02_intermediate" / "validated.parquet")
    primary = pd.read_parquet(data / "03_primary" / "features.parquet")
    assert extracted["row"].tolist() == [1, 2, 3, 4]
    assert validated["id"].tolist() == primary["id"].tolist() == ["a", "b", "c"]
    assert validated["stars"].tolist() == [5, 1, 4]
    assert {"text", "clean_text", "text_length", "date_year"} <= set(primary.columns)
    assert not {"stars", "label"} & set(primary.columns)


def test_layers_can_be_left_out(features: Callable[..., Any], home: Path) -> None:
    features(ROWS, "feature.save_layers=false")
    data = home / "data"
    assert not (data / "03_primary").exists()
    assert {path.name for path in (data / "02_intermediate").glob("*.parquet")} == {
        "rejected.parquet"
    }


def test_messages_that_are_not_asked_for_are_counted(
    features: Callable[..., Any], home: Path
) -> None:
    record = features(ROWS, "dataset.since=2020-01-02", "dataset.max_reviews=1")
    assert record["skipped"] == 2
    assert record["stages"]["feature/extract"]["read"] == 1
    assert snapshot(home)["id"].tolist() == ["b"]


def test_ids_that_are_derived_are_said_to_be(features: Callable[..., Any], home: Path) -> None:
    assert features(ROWS)["ids"] == "given"
    record = features([{"text": "x"}, {"text": "y"}, {"text": "x"}])
    assert record["ids"] == "derived from content"
    assert record["stages"]["feature/deduplicate"]["duplicates"] == 1
    assert snapshot(home)["id"].str.fullmatch("[0-9a-f]{32}").all()


def test_no_accepted_row_leaves_what_was_there(features: Callable[..., Any], home: Path) -> None:
    features(ROWS)
    before = manifest(home)
    record = features([{"id": "a", "text": " "}], status=2)
    assert record["error"].startswith("None of 1 rows of")
    assert manifest(home) == before
    assert len(snapshot(home)) == 3


def test_a_truncated_text_is_counted_and_told(
    cli: Callable[..., Any], home: Path, tmp_path: Path, last_run: LastRun
) -> None:
    path = tmp_path / "m.csv"
    pd.DataFrame({"text": ["word " * 50, "short"]}).to_csv(path, index=False)
    ended = cli(
        "pipeline=feature",
        "dataset=messages",
        f"dataset.path={path}",
        f"paths.root={home}",
        "embedder.max_tokens=10",
        "logs.level=WARNING",
    )
    assert ended.status == 0
    assert "1 of 2 embedded texts are longer than the embedder reads" in ended.stderr
    assert last_run(home)["stages"]["feature/embed"]["truncated_texts"] == 1


def test_averages_that_hold_the_review_change_nothing(
    cli: Callable[..., Any],
    home: Path,
    tmp_path: Path,
    synthetic: SampleFiles,
    last_run: LastRun,
) -> None:
    def run(user: Path, business: Path) -> tuple[int, int, int]:
        ended = cli(
            "pipeline=feature",
            "dataset=yelp",
            f"dataset.review={synthetic.review}",
            f"dataset.user={user}",
            f"dataset.business={business}",
            f"paths.root={home}",
            "embedder=none",
            "feature.save_layers=false",
            "logs.level=WARNING",
        )
        assert ended.status == 0, ended.stderr
        return usage(last_run(home))

    changed = {}
    for name, column in (("user", "average_stars"), ("business", "stars")):
        rows = [
            json.loads(line)
            for line in getattr(synthetic, name).read_text(encoding="utf-8").splitlines()
        ]
        assert all(column in row for row in rows)
        lines = [json.dumps(row | {column: 1.0}) for row in rows]
        changed[name] = tmp_path / f"{name}.json"
        changed[name].write_text("\n".join(lines), encoding="utf-8")
    computed, _, _ = run(synthetic.user, synthetic.business)
    assert computed > 500
    assert run(**changed) == (0, computed, 0)


def test_several_processes_leave_what_one_does(features: Callable[..., Any], home: Path) -> None:
    rows = [
        {
            "id": str(i),
            "text": f"message {i % 23}",
            "rating": i % 7,
            "date": f"2020-01-{i % 28 + 1}",
        }
        for i in range(60)
    ]
    alone = features(rows)
    expected = snapshot(home)
    shutil.rmtree(home)
    record = features(rows, "engine.processes=2", "engine.batch_rows=9")
    pd.testing.assert_frame_equal(snapshot(home), expected)
    validated = pd.read_parquet(home / "data" / "02_intermediate" / "validated.parquet")
    assert validated["id"].tolist() == expected["id"].tolist()
    for stage, counts in alone["stages"].items():
        for kind in ("read", "delivered", "rejected", "duplicates"):
            assert record["stages"][stage][kind] == counts[kind], stage
