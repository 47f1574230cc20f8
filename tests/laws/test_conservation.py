"""Law 2: rows read = rows delivered + rows rejected, each with a reason, + duplicates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_nlp.logs import Clock
from batch_nlp.rows.counts import Counts
from batch_nlp.rows.datasets import MessagesDataset
from batch_nlp.rows.extract import Engine
from batch_nlp.rows.stream import RowStream
from batch_nlp.rows.validate import validate
from batch_nlp.sample import SampleFiles

Cli = Callable[..., Any]


def assert_adds_up(record: dict[str, Any]) -> None:
    assert record["stages"]
    for name, stage in record["stages"].items():
        assert stage["read"] == stage["delivered"] + stage["rejected"] + stage["duplicates"], name


def assert_has_reasons(rejected: pd.DataFrame) -> None:
    assert rejected[["source", "row", "column", "check"]].notna().all(axis=None)
    assert (rejected["check"].str.len() > 0).all()


def places(rejected: pd.DataFrame) -> set[tuple[str, int]]:
    return set(rejected[["source", "row"]].itertuples(index=False, name=None))


def test_the_sample_run_adds_up(
    trained_root: Path, last_run: Callable[[Path], dict[str, Any]]
) -> None:
    record = last_run(trained_root)
    assert_adds_up(record)
    stages = record["stages"]
    assert stages["feature/extract"]["read"] == 600
    assert stages["feature/extract"]["rejected"] > 0
    assert stages["feature/validate"]["rejected"] > 0
    rejected = pd.read_parquet(trained_root / "data" / "02_intermediate" / "rejected.parquet")
    assert_has_reasons(rejected)
    lost = sum(stage["rejected"] + stage["duplicates"] for stage in stages.values())
    assert len(places(rejected)) == lost
    # What a stage delivers is what the next one reads.
    flow = ["extract", "deduplicate", "validate", "clean_text", "embed", "store"]
    for before, after in pairwise(flow):
        assert stages[f"feature/{before}"]["delivered"] == stages[f"feature/{after}"]["read"]
    assert stages["feature/store"]["delivered"] == stages["training/label"]["read"]
    split = pd.read_parquet(trained_root / "data" / "05_model_input" / "split.parquet")
    assert len(split) == stages["training/split"]["delivered"]
    assert (split["split"] == "test").sum() == stages["inference/extract"]["read"]


def infer(cli: Cli, root: Path, *overrides: str) -> None:
    ended = cli("pipeline=inference", f"paths.root={root}", "logs.level=WARNING", *overrides)
    assert ended.status in (0, 3), ended.stderr


def test_every_line_of_a_yelp_file_is_predicted_or_rejected(
    *,
    cli: Cli,
    root: Path,
    synthetic: SampleFiles,
    last_run: Callable[[Path], dict[str, Any]],
    delivered: Callable[[Path], pd.DataFrame],
    turned_away: Callable[[Path], pd.DataFrame],
) -> None:
    infer(
        cli,
        root,
        "dataset=yelp",
        f"inference.source={synthetic.review}",
        f"dataset.user={synthetic.user}",
        f"dataset.business={synthetic.business}",
    )
    assert_adds_up(last_run(root))
    rejected = turned_away(root)
    assert_has_reasons(rejected)
    assert set(rejected["source"]) == {str(synthetic.review)}
    predictions = delivered(root)
    lines = synthetic.review.read_text(encoding="utf-8").splitlines()
    assert len(predictions) + len(places(rejected)) == len(lines) == 600
    assert {"valid JSON", "not a duplicate", "not missing"} <= set(rejected["check"])
    # Its place in the file tells each line's fate, and the order of the file is kept.
    turned = {row for _, row in places(rejected)}
    kept = [json.loads(line) for i, line in enumerate(lines, start=1) if i not in turned]
    assert predictions.index.tolist() == [row["review_id"] for row in kept]


def test_bad_and_missing_users_cost_no_review(
    *,
    cli: Cli,
    root: Path,
    tmp_path: Path,
    reviews: list[dict[str, Any]],
    last_run: Callable[[Path], dict[str, Any]],
    delivered: Callable[[Path], pd.DataFrame],
    turned_away: Callable[[Path], pd.DataFrame],
) -> None:
    chosen = reviews[:6]
    names = [f"user {i}" for i in range(len(chosen))]
    lines = [json.dumps(row | {"user_id": name}) for row, name in zip(chosen, names, strict=True)]
    review, user = tmp_path / "review.json", tmp_path / "user.json"
    review.write_text("\n".join(lines))
    users: list[Any] = [{"user_id": name, "fans": i} for i, name in enumerate(names[:3])]
    users[1]["fans"] = "many"
    users += [users[0], {"user_id": names[0], "fans": 7}]
    user.write_text("\n".join([*map(json.dumps, users), "broken"]))
    infer(cli, root, "dataset=yelp", f"inference.source={review}", f"dataset.user={user}")
    assert delivered(root).index.tolist() == [row["review_id"] for row in chosen]
    rejected = turned_away(root)
    assert_has_reasons(rejected)
    assert places(rejected) == {(str(user), row) for row in (2, 4, 5, 6)}
    record = last_run(root)
    assert_adds_up(record)
    stage = record["stages"]["inference/user"]
    assert {name: stage[name] for name in Counts().to_dict()} == {
        "read": 6,
        "delivered": 2,
        "rejected": 2,
        "duplicates": 2,
    }


def test_every_record_of_a_messages_file_is_predicted_or_rejected(
    *,
    cli: Cli,
    root: Path,
    tmp_path: Path,
    reviews: list[dict[str, Any]],
    last_run: Callable[[Path], dict[str, Any]],
    delivered: Callable[[Path], pd.DataFrame],
    turned_away: Callable[[Path], pd.DataFrame],
) -> None:
    path = tmp_path / "new.csv"
    records: list[list[str]] = [
        ["1", reviews[0]["text"], "2020-01-01"],
        ["2", 'two\nlines, and "quotes"', ""],
        ["2", "the same id again", ""],
        ["3", "", "2020-01-01"],
        ["4", "date", "soon"],
        ["5", "one too many", "2020-01-01", "x"],
        ["6"],
        ["7", "fine", "2020-01-02T10:00:00Z"],
    ]
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["id", "text", "date"], *records])
    infer(cli, root, "dataset=messages", f"inference.source={path}", "inference.csv=true")
    assert delivered(root).index.tolist() == ["1", "2", "7"]
    rejected = turned_away(root)
    assert_has_reasons(rejected)
    assert places(rejected) == {(str(path), row) for row in (3, 4, 5, 6, 7)}
    assert_adds_up(last_run(root))
    beside = pd.read_csv(
        root / "data" / "09_inference" / "predictions.csv",
        dtype={"id": str},
        index_col="id",
    )
    pd.testing.assert_frame_equal(beside, delivered(root), rtol=1e-12)


# Any file at all

TEXT = st.one_of(
    st.none(),
    st.sampled_from(
        ["", " \t", "\u00a0", '"', '""', ",", "a,b", "a\nb", "a\r\nb", "\ufeffa", "a;"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
ROW = st.fixed_dictionaries(
    {
        "id": st.one_of(st.none(), st.sampled_from("abc"), st.integers(0, 99).map(str)),
        "text": TEXT,
        "rating": st.sampled_from([None, "1", "5.0", "0", "six"]),
        "date": st.sampled_from([None, "2020-01-01", "2020-02-30", "2020-01-01T10:00:00Z"]),
    }
)
BROKEN = st.sampled_from(["{", "[1]", '{"id": "a", "text": "x"', "null", '"', "\\", "\x00"])


def passed(path: Path) -> tuple[list[pd.DataFrame], pd.DataFrame, dict[str, Counts]]:
    source = MessagesDataset(path=str(path)).source()
    rejected = path.with_name("rejected.parquet")
    stream = RowStream(
        source,
        lambda frame: validate(frame, source.fields),
        engine=Engine(batch_rows=4, threads=1),
        spill=path.with_name("spill"),
        rejected=rejected,
        clock=Clock(),
    )
    with stream:
        accepted = list(stream)
    return accepted, pd.read_parquet(rejected), stream.counts


def assert_conserved(path: Path, n_records: int) -> None:
    accepted, rejected, counts = passed(path)
    n_accepted = sum(map(len, accepted))
    assert counts["extract"].read == n_records
    assert n_accepted == counts["validate"].delivered
    assert n_accepted + len(places(rejected)) == n_records
    lost = sum(each.rejected + each.duplicates for each in counts.values())
    assert len(places(rejected)) == lost
    assert_has_reasons(rejected)
    for name, each in counts.items():
        each.check(name)


@settings(max_examples=20)
@given(st.lists(st.one_of(ROW, BROKEN), max_size=9), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_any_json_lines(rows: list[Any], line_end: str) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    # What the columns are shows in a line that is whole.
    lines.append(json.dumps({"id": "z", "text": "x", "rating": None, "date": None}))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.jsonl"
        path.write_bytes(line_end.join(lines).encode())
        assert_conserved(path, len(lines))


@settings(max_examples=20)
@given(st.lists(st.tuples(ROW, st.integers(-1, 1)), max_size=9), st.sampled_from(["\n", "\r\n"]))
def test_any_csv(rows: list[tuple[dict[str, Any], int]], line_end: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerow(["id", "text", "rating", "date"])
    for row, more in rows:
        values = ["" if value is None else value for value in row.values()]
        writer.writerow({-1: values[:-1], 0: values, 1: [*values, "more"]}[more])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.csv"
        path.write_bytes(text.getvalue().encode())
        assert_conserved(path, len(rows))


def test_a_stage_that_loses_a_row_stops_the_run(
    cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batch_nlp.rows.stream import RowStream

    whole = RowStream.__iter__

    def losing(self: RowStream) -> Any:
        yield from whole(self)
        self.counts["validate"].delivered -= 1

    monkeypatch.setattr(RowStream, "__iter__", losing)
    ended = cli("pipeline=inference", f"paths.root={root}", "logs.level=WARNING")
    assert ended.status == 1
    assert "Stage inference/validate lost rows: read " in ended.stderr
