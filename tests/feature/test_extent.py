"""A feature run that goes on where the last one ended is as one that reads everything."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from batch_nlp.tables import file_digest, read_lines

Run = Callable[..., dict[str, Any]]


def review(number: int, **more: Any) -> str:
    row = {
        "review_id": f"r{number}",
        "user_id": f"u{number % 3}",
        "text": f"{number % 5} dishes were good",
        "stars": 1 + number % 5,
        "date": f"2020-01-{1 + number % 28:02d}",
    }
    return json.dumps(row | more)


OLD = [
    review(0),
    review(1),
    review(1, text="again"),
    "{broken",
    "",
    review(2, text=" "),
    review(3, stars=9),
    review(4),
]
NEW = [
    review(1, text="again, later"),  # of one that was delivered
    review(3),  # of one that was rejected
    "{broken too",
    review(5),
    review(6, text=""),
    review(6),
    review(0, stars=3),
    review(7),
]


def text_of(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    raw.mkdir()
    users = [json.dumps({"user_id": f"u{number}", "fans": number}) for number in range(2)]
    (raw / "user.json").write_text(text_of([*users, users[0], '{"user_id": "bad", "fans": -1}']))
    (raw / "review_1.json").write_text(text_of(OLD))
    return raw


@pytest.fixture
def features(
    cli: Callable[..., Any], folder: Path, tmp_path: Path, last_run: Callable[[Path], Any]
) -> Run:
    def run(*overrides: str, home: str = "root", status: int = 0) -> dict[str, Any]:
        ended = cli(
            "pipeline=feature",
            "dataset=yelp",
            f"dataset.review={folder}/review*.json",
            f"dataset.user={folder}/user.json",
            f"paths.root='{tmp_path / home}'",
            "embedder=hashing",
            "feature.save_layers=false",
            "logs.level=WARNING",
            *overrides,
        )
        assert ended.status == status, ended.stderr
        found: dict[str, Any] = last_run(tmp_path / home)
        return found

    return run


def left_by(home: Path) -> dict[str, Any]:
    """What a run delivers, and what it turned away in any order."""
    store = home / "data" / "04_feature"
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    rejected = pd.read_parquet(home / "data" / "02_intermediate" / "rejected.parquet")
    return {
        "snapshot": pd.read_parquet(store / manifest["snapshot"]).to_csv(),
        "rejected": rejected.sort_values([*rejected.columns], ignore_index=True).to_csv(),
        "about": [manifest[name] for name in ("n_rows", "dated", "sources", "fingerprint")],
    }


def counts(record: dict[str, Any]) -> dict[str, Any]:
    names = ("read", "delivered", "rejected", "duplicates")
    stages = record["stages"].items()
    return {stage: [told[name] for name in names] for stage, told in stages}


def as_a_whole(
    features: Run, tmp_path: Path, record: dict[str, Any], *overrides: str, home: str = "root"
) -> None:
    """Hold what a run left behind against one that reads everything."""
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    whole = features(*overrides, home="other")
    assert "continues" not in whole
    assert left_by(tmp_path / home) == left_by(tmp_path / "other")
    assert counts(record) == counts(whole)


def test_lines_that_are_added_are_read_alone(
    cli: Callable[..., Any],
    features: Run,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = features()
    with (folder / "review_1.json").open("a") as stream:
        stream.write(text_of(NEW))
    offsets = []

    def read(path: str, offset: int = 0, number: int = 1) -> Any:
        offsets.append((Path(path).name, offset, number))
        return read_lines(path, offset, number)

    monkeypatch.setattr("batch_nlp.rows.datasets.read_lines", read)
    record = features()
    where = ("review_1.json", len(text_of(OLD)), len(OLD) + 1)
    assert [each for each in offsets if each[0] != "user.json"] == [where] * 2
    assert record["continues"] == first["run_id"]
    assert record["stages"]["feature/store"]["computed"] == 2
    as_a_whole(features, tmp_path, record)
    assert cli("pipeline=audit", f"paths.root={tmp_path / 'root'}").status == 0


def test_files_that_are_added_are_read_alone(features: Run, folder: Path, tmp_path: Path) -> None:
    features()
    (folder / "review_2.json").write_text(text_of(NEW[:4]))
    assert "continues" in features()
    with (folder / "review_2.json").open("a") as stream:
        stream.write(text_of(NEW[4:]))
    (folder / "review_3.json").write_text(text_of([review(9), review(7)]))
    record = features("engine.batch_rows=1")
    assert "continues" in record
    as_a_whole(features, tmp_path, record)


@pytest.mark.parametrize("home", ["source=a", "id=7", "z[1]"])
def test_a_folder_may_be_named_like_a_column(
    cli: Callable[..., Any], features: Run, folder: Path, tmp_path: Path, home: str
) -> None:
    features(home=home)
    (folder / "review_2.json").write_text(text_of(NEW))
    record = features(home=home)
    assert "continues" in record
    as_a_whole(features, tmp_path, record, home=home)
    assert cli("pipeline=audit", f"paths.root='{tmp_path / home}'").status == 0


def test_what_a_run_did_not_use_may_go(features: Run, folder: Path, tmp_path: Path) -> None:
    features()
    rows = next((tmp_path / "root" / "data" / "04_feature" / "rows").iterdir())
    (used,) = rows.iterdir()
    unused = used.with_name("unused.parquet")
    pd.read_parquet(used)[:0].to_parquet(unused)
    os.utime(unused, (1, 1))
    features("force=true")
    unused.unlink()
    os.utime(used, (1, 1))
    assert "continues" in features()
    assert used.stat().st_mtime > 1


def kept_users(home: Path) -> Path:
    return home / "data" / "04_feature" / "references" / "user.parquet"


def test_users_are_not_read_again(features: Run, folder: Path, tmp_path: Path) -> None:
    features()
    home = tmp_path / "root"
    users, extent = kept_users(home), home / "data" / "04_feature" / "extent.json"
    # As no users' file says it, so that it shows where a message's user comes from.
    pd.read_parquet(users).assign(review_count="77").to_parquet(users, index=False)
    told = json.loads(extent.read_text(encoding="utf-8"))
    told["sha256"]["user"] = file_digest(users)
    extent.write_text(json.dumps(told), encoding="utf-8")
    with (folder / "review_1.json").open("a") as stream:
        stream.write(text_of(NEW))
    assert "continues" in features()
    parts = (home / "data" / "04_feature" / "rows").glob("*/*.parquet")
    rows = pd.concat(map(pd.read_parquet, parts))
    assert set(rows["review_count_user"].dropna()) == {77.0}


@pytest.mark.parametrize("damage", ["changed", "gone", "not told"])
def test_everything_is_read_where_kept_users_are_damaged(
    features: Run, folder: Path, tmp_path: Path, damage: str
) -> None:
    features()
    kept = kept_users(tmp_path / "root")
    if damage == "gone":
        kept.unlink()
    elif damage == "not told":  # as by an earlier version
        extent = tmp_path / "root" / "data" / "04_feature" / "extent.json"
        told = json.loads(extent.read_text(encoding="utf-8"))
        del told["references"], told["sha256"]["user"], told["counts"]["user"]
        extent.write_text(json.dumps(told), encoding="utf-8")
    else:
        kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    with (folder / "review_1.json").open("a") as stream:
        stream.write(text_of(NEW))
    record = features()
    assert "continues" not in record
    as_a_whole(features, tmp_path, record)
    assert "continues" in features()


def test_users_that_have_changed_take_the_place_of_those_before(
    features: Run, folder: Path, tmp_path: Path
) -> None:
    features()
    kept = kept_users(tmp_path / "root")
    before = pd.read_parquet(kept)["user_id"].tolist()
    with (folder / "user.json").open("a") as stream:
        stream.write(json.dumps({"user_id": "u2", "fans": 2}) + "\n")
    assert "continues" not in features()
    assert pd.read_parquet(kept)["user_id"].tolist() == [*before, "u2"]


def test_nothing_new_is_fine(features: Run, tmp_path: Path) -> None:
    features()
    record = features()
    assert "continues" in record
    assert record["stages"]["feature/store"]["computed"] == 0
    as_a_whole(features, tmp_path, record)


def test_only_rows_that_are_rejected_are_new(features: Run, folder: Path, tmp_path: Path) -> None:
    features()
    (folder / "review_2.json").write_text("{broken\n")
    record = features()
    assert "continues" in record
    as_a_whole(features, tmp_path, record)


def test_a_span_of_time_holds_for_what_is_added(
    features: Run, folder: Path, tmp_path: Path
) -> None:
    span = ("dataset.since=2020-01-03",)
    features(*span)
    (folder / "review_2.json").write_text(text_of(NEW))
    record = features(*span)
    assert "continues" in record
    assert record["skipped"] == 5
    as_a_whole(features, tmp_path, record, *span)


def changed_first_line(folder: Path, home: Path) -> None:
    path = folder / "review_1.json"
    path.write_text(path.read_text().replace("0 dishes", "0 plates"))


def new_file_before(folder: Path, home: Path) -> None:
    (folder / "review_0.json").write_text(text_of(NEW))


def file_gone(folder: Path, home: Path) -> None:
    (folder / "review_1.json").rename(folder / "review_2.json")


def new_users(folder: Path, home: Path) -> None:
    with (folder / "user.json").open("a") as stream:
        stream.write(text_of(['{"user_id": "u2", "fans": 7}']))


def features_lost(folder: Path, home: Path) -> None:
    next((home / "data" / "04_feature" / "rows").rglob("*.parquet")).unlink()


def rejected_changed(folder: Path, home: Path) -> None:
    path = home / "data" / "02_intermediate" / "rejected.parquet"
    pd.read_parquet(path)[:1].to_parquet(path)


def extent_broken(folder: Path, home: Path) -> None:
    (home / "data" / "04_feature" / "extent.json").write_text("{")


def snapshot_lost(folder: Path, home: Path) -> None:
    next((home / "data" / "04_feature" / "snapshots").iterdir()).unlink()


@pytest.mark.parametrize(
    "happens",
    [
        changed_first_line,
        new_file_before,
        file_gone,
        new_users,
        features_lost,
        rejected_changed,
        extent_broken,
        snapshot_lost,
    ],
)
def test_everything_is_read_where_something_else_has_changed(
    features: Run, folder: Path, tmp_path: Path, happens: Callable[[Path, Path], None]
) -> None:
    features()
    happens(folder, tmp_path / "root")
    with max(folder.glob("review*")).open("a") as stream:
        stream.write(text_of(NEW))
    record = features()
    assert "continues" not in record
    as_a_whole(features, tmp_path, record)


@pytest.mark.parametrize(
    "overrides",
    [
        ("force=true",),
        ("feature.save_layers=true",),
        ("dataset.max_reviews=9",),
        ("dataset.until=2020-01-03",),
        ("embedder.n_features=8",),
    ],
)
def test_everything_is_read_where_something_else_is_asked_for(
    features: Run, folder: Path, overrides: tuple[str, ...]
) -> None:
    features()
    (folder / "review_2.json").write_text(text_of(NEW))
    assert "continues" not in features(*overrides)


def test_after_a_run_that_was_forced_it_goes_on(features: Run, folder: Path) -> None:
    first = features("force=true")
    assert features()["continues"] == first["run_id"]


@pytest.mark.parametrize("step", ["job.write_manifest", "job.make_room", "extent.Extent.write"])
def test_a_run_that_ends_in_between_does_no_harm(
    features: Run, folder: Path, tmp_path: Path, step: str
) -> None:
    features()
    (folder / "review_2.json").write_text(text_of(NEW))
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("killed here")

        patch.setattr(f"batch_nlp.feature.{step}", fail)
        features(status=1)
    (folder / "review_3.json").write_text(text_of([review(9), review(7)]))
    as_a_whole(features, tmp_path, features())


def test_a_line_that_was_not_ended_is_read_again(
    features: Run, folder: Path, tmp_path: Path
) -> None:
    path = folder / "review_1.json"
    path.write_text(text_of(OLD).rstrip("\n"))
    features()
    with path.open("a") as stream:
        stream.write(" \n" + text_of(NEW))
    record = features()
    assert "continues" not in record
    as_a_whole(features, tmp_path, record)


def test_compressed_files_go_on_with_whole_files(
    features: Run, folder: Path, tmp_path: Path
) -> None:
    pattern = f"dataset.review={folder}/review*.json.gz"
    (folder / "review_1.json.gz").write_bytes(gzip.compress(text_of(OLD).encode()))
    features(pattern)
    (folder / "review_2.json.gz").write_bytes(gzip.compress(text_of(NEW).encode()))
    record = features(pattern)
    assert "continues" in record
    as_a_whole(features, tmp_path, record, pattern)
    (folder / "review_2.json.gz").write_bytes(gzip.compress(text_of([*NEW, review(8)]).encode()))
    record = features(pattern)
    assert "continues" not in record
    as_a_whole(features, tmp_path, record, pattern)
