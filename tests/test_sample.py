"""The synthetic sample: repeatable, of the published shape, and as untidy as real data."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.naive_bayes import MultinomialNB

from batch_nlp import sample
from batch_nlp import sample_phrases as phrases
from batch_nlp.errors import InputError
from batch_nlp.sample import LONGEST, VERSION, Sample, SampleFiles

N = 3000
ID = re.compile(r"[A-Za-z0-9_-]{22}")
FIELDS = {
    "review": {
        "review_id": (str,),
        "user_id": (str,),
        "business_id": (str,),
        "stars": (float,),
        "useful": (int,),
        "funny": (int,),
        "cool": (int,),
        "text": (str,),
        "date": (str,),
    },
    "user": {
        "user_id": (str,),
        "name": (str,),
        "review_count": (int,),
        "yelping_since": (str,),
        "useful": (int,),
        "funny": (int,),
        "cool": (int,),
        "elite": (str,),
        "friends": (str,),
        "fans": (int,),
        "average_stars": (float,),
    },
    "business": {
        "business_id": (str,),
        "name": (str,),
        "address": (str,),
        "city": (str,),
        "state": (str,),
        "postal_code": (str,),
        "latitude": (float,),
        "longitude": (float,),
        "stars": (float,),
        "review_count": (int,),
        "is_open": (int,),
        "attributes": (dict, NoneType),
        "categories": (str, NoneType),
        "hours": (dict, NoneType),
    },
}


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - the data has no zone


def is_valid(row: dict[str, Any]) -> bool:
    try:
        moment(row["date"])
    except ValueError:
        return False
    return row["text"] is not None and 1 <= row["stars"] <= 5


def parse(lines: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    rows, malformed = [], []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            malformed.append(line)
    return rows, malformed


def lines_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


class Tables:
    """The default sample, read back."""

    def __init__(self, files: SampleFiles) -> None:
        self.lines = lines_of(files.review)
        rows, self.malformed = parse(self.lines)
        self.faulty = [row for row in rows if not is_valid(row)]
        self.valid = [row for row in rows if is_valid(row)]
        first: dict[str, dict[str, Any]] = {}
        for row in self.valid:
            first.setdefault(row["review_id"], row)
        self.distinct = sorted(first.values(), key=lambda row: row["date"])
        self.users = [json.loads(line) for line in lines_of(files.user)]
        self.businesses = [json.loads(line) for line in lines_of(files.business)]

    def share(self, pattern: str, flags: int = 0) -> float:
        found = re.compile(pattern, flags)
        return sum(bool(found.search(row["text"])) for row in self.distinct) / len(self.distinct)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Tables(Sample(n_reviews=N, seed=7).write(tmp_path_factory.mktemp("sample")))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_same_parameters_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Sample(n_reviews=300, seed=3).write(tmp_path / name)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_the_bytes_are_those_of_this_version(tmp_path: Path) -> None:
    # Holds on every platform. Where a change of the sample is meant, raise VERSION with it.
    Sample(n_reviews=200, seed=7).write(tmp_path)
    found = digests(tmp_path)
    assert VERSION == 1
    assert {name.split("_")[-1]: digest[:16] for name, digest in found.items()} == {
        "review.json": "b3f9214f1050c0a3",
        "user.json": "63a30ca5d656b1c5",
        "business.json": "ec6282823635a60f",
        "sample.json": "49ebd36abff43300",
    }


def test_another_seed_gives_other_texts_and_ids(tmp_path: Path) -> None:
    seen = []
    for seed in (1, -1):
        rows, _ = parse(
            lines_of(Sample(n_reviews=300, seed=seed).write(tmp_path / f"{seed}").review)
        )
        seen.append(rows)
    for field, most in (("text", 0.1), ("review_id", 0.0), ("user_id", 0.0)):
        mine, other = ({row[field] for row in rows} for rows in seen)
        assert len(mine & other) <= most * len(mine)


def test_files_are_named_as_published_and_the_manifest_fits(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    files = Sample(n_reviews=50, seed=2).write(folder)
    assert files == SampleFiles(
        **{table: folder / f"yelp_academic_dataset_{table}.json" for table in FIELDS}
    )
    manifest = json.loads((folder / "sample.json").read_text())
    found = digests(folder)
    del found["sample.json"]
    assert manifest == {
        "generator": VERSION,
        "n_reviews": 50,
        "seed": 2,
        "synthetic": True,
        "sha256": found,
    }


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_a_rerun_writes_nothing(tmp_path: Path) -> None:
    Sample(n_reviews=50).write(tmp_path)
    before = stamps(tmp_path)
    Sample(n_reviews=50).write(tmp_path)
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("damage", ["shorten", "remove", "manifest"])
def test_a_damaged_sample_is_written_again(tmp_path: Path, damage: str) -> None:
    files = Sample(n_reviews=50).write(tmp_path)
    whole = digests(tmp_path)
    if damage == "shorten":
        files.review.write_bytes(files.review.read_bytes()[:-100])
    elif damage == "remove":
        files.user.unlink()
    else:
        (tmp_path / "sample.json").write_text("{")
    Sample(n_reviews=50).write(tmp_path)
    assert digests(tmp_path) == whole


def test_a_run_cut_short_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Sample(n_reviews=50).write(tmp_path / "whole")
    users = sample._World.users

    def stops(world: sample._World) -> Iterator[str]:
        yield next(users(world))
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(sample._World, "users", stops)
        with pytest.raises(OSError, match="no space left"):
            Sample(n_reviews=50).write(tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut").iterdir()] == [
        "yelp_academic_dataset_review.json"
    ]
    Sample(n_reviews=50).write(tmp_path / "cut")
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_other_parameters_replace_the_sample(tmp_path: Path) -> None:
    Sample(n_reviews=50).write(tmp_path)
    files = Sample(n_reviews=60).write(tmp_path)
    assert len(lines_of(files.review)) == 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_reviews": 0}, "n_reviews must be an integer of at least 1, got 0"),
        ({"n_reviews": -5}, "n_reviews must be an integer of at least 1, got -5"),
        ({"n_reviews": "many"}, "n_reviews must be an integer of at least 1, got 'many'"),
        ({"n_reviews": 10.0}, "n_reviews must be an integer of at least 1, got 10.0"),
        ({"n_reviews": True}, "n_reviews must be an integer of at least 1, got True"),
        ({"seed": "x"}, "seed must be an integer, got 'x'"),
        ({"seed": None}, "seed must be an integer, got None"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"Sample: {message}.")):
        Sample(**arguments)


def test_arguments_are_keyword_only() -> None:
    with pytest.raises(TypeError):
        Sample(100)  # type: ignore[misc]


@pytest.mark.parametrize("n_reviews", [1, 12, 99, 100, 101, 999, 1777])
def test_lines_and_faults_are_counted_exactly(tmp_path: Path, n_reviews: int) -> None:
    lines = lines_of(Sample(n_reviews=n_reviews).write(tmp_path).review)
    rows, malformed = parse(lines)
    assert len(lines) == n_reviews
    assert len(malformed) == (3 if n_reviews >= 100 else 0)
    assert sum(not is_valid(row) for row in rows) == (6 if n_reviews >= 100 else 0)


def test_rows_have_the_published_fields_in_order_and_type(tables: Tables) -> None:
    for table, rows in (
        ("review", tables.valid),
        ("user", tables.users),
        ("business", tables.businesses),
    ):
        for row in rows:
            assert list(row) == list(FIELDS[table])
            for field, types in FIELDS[table].items():
                assert type(row[field]) in types, (table, field, row[field])


def test_values_are_possible(tables: Tables) -> None:
    for row in tables.valid:
        assert all(ID.fullmatch(row[key]) for key in ("review_id", "user_id", "business_id"))
        assert row["stars"] in {1.0, 2.0, 3.0, 4.0, 5.0}
        assert min(row["useful"], row["funny"], row["cool"]) >= 0
        assert 2012 <= moment(row["date"]).year <= 2021
        assert 1 <= len(row["text"]) <= LONGEST
    for user in tables.users:
        assert ID.fullmatch(user["user_id"])
        assert 1 <= user["average_stars"] <= 5
        assert user["review_count"] >= 1
        friends = user["friends"]
        assert friends == "None" or all(ID.fullmatch(friend) for friend in friends.split(", "))
    for business in tables.businesses:
        assert business["stars"] * 2 in range(2, 11)
        assert business["is_open"] in {0, 1}
        assert re.fullmatch(r"\d{5}", business["postal_code"])
        assert re.fullmatch(r"[A-Z]{2}", business["state"])
    assert len({user["user_id"] for user in tables.users}) == len(tables.users)
    assert len({row["business_id"] for row in tables.businesses}) == len(tables.businesses)
    assert all('"stars": 5.0' in line for line in tables.lines[:50] if '"stars": 5' in line)


def test_users_joined_before_their_reviews(tables: Tables) -> None:
    since = {user["user_id"]: moment(user["yelping_since"]) for user in tables.users}
    known = [row for row in tables.valid if row["user_id"] in since]
    assert len(known) > N / 2
    assert all(since[row["user_id"]] < moment(row["date"]) for row in known)


def test_stars_are_j_shaped(tables: Tables) -> None:
    counts = Counter(row["stars"] for row in tables.distinct)
    for stars, share in ((5, 0.42), (4, 0.21), (3, 0.14), (2, 0.09), (1, 0.14)):
        assert counts[stars] / len(tables.distinct) == pytest.approx(share, abs=0.03)


def test_some_users_and_businesses_are_in_no_table(tables: Tables) -> None:
    users = {row["user_id"] for row in tables.users}
    businesses = {row["business_id"] for row in tables.businesses}
    n = len(tables.valid)
    assert 0.07 < sum(row["user_id"] not in users for row in tables.valid) / n < 0.13
    assert 0.015 < sum(row["business_id"] not in businesses for row in tables.valid) / n < 0.05


def test_businesses_cover_every_kind_and_some_say_nothing(tables: Tables) -> None:
    categories = [row["categories"] for row in tables.businesses]
    for word in ("Restaurants", "Bars", "Health", "Shopping", "Beauty", "Automotive", "Services"):
        assert sum(word in (text or "") for text in categories) >= 3, word
    n = len(categories)
    assert 0.01 < categories.count(None) / n < 0.1
    assert 0.03 < sum(row["attributes"] is None for row in tables.businesses) / n < 0.2
    assert 0.05 < sum(row["hours"] is None for row in tables.businesses) / n < 0.3


def test_elite_years_are_written_as_published(tables: Tables) -> None:
    elite = [user["elite"] for user in tables.users]
    years = [text for text in elite if text]
    assert 0.05 < len(years) / len(elite) < 0.3
    assert all(re.fullmatch(r"20\d\d(,20,20|,20\d\d)*|20,20(,2021)?", text) for text in years)
    assert sum("20,20" in text for text in years) >= 10
    assert not any("2020" in text for text in years)


def test_ids_and_texts_come_again(tables: Tables) -> None:
    by_id: dict[str, set[str]] = {}
    for row in tables.valid:
        by_id.setdefault(row["review_id"], set()).add(row["text"])
    again = len(tables.valid) - len(by_id)
    assert 0.002 < again / N < 0.012
    assert sum(len(texts) > 1 for texts in by_id.values()) >= 2
    lines = Counter(tables.lines)
    assert sum(times > 1 for times in lines.values()) >= 2
    writers: dict[str, set[str]] = {}
    for row in tables.distinct:
        if len(row["text"]) > 30:
            writers.setdefault(row["text"], set()).add(row["user_id"])
    assert 0.004 < sum(len(users) > 1 for users in writers.values()) / N < 0.02


def test_faulty_lines_are_of_every_kind(tables: Tables) -> None:
    assert len(tables.malformed) == 3
    assert sum(line.startswith('{"review_id"') for line in tables.malformed) == 1
    faults = {
        "stars 0": any(row["stars"] == 0 for row in tables.faulty),
        "stars 6": any(row["stars"] == 6 for row in tables.faulty),
        "no text": any(row["text"] is None for row in tables.faulty),
        "no such day": any(row["date"][5:10] == "02-30" for row in tables.faulty),
    }
    assert all(faults.values()), faults
    assert len(tables.faulty) == 6


def test_texts_are_very_short_to_very_long(tables: Tables) -> None:
    lengths = sorted(len(row["text"]) for row in tables.distinct)
    n = len(lengths)
    assert 300 < sum(lengths) / n < 500
    assert 0.015 < sum(length <= 15 for length in lengths) / n < 0.06
    assert 0.005 < sum(length > 2000 for length in lengths) / n < 0.03
    assert lengths[0] == 1
    assert lengths[-1] > 4500


@pytest.mark.parametrize(
    ("what", "pattern", "low", "high"),
    [
        ("line breaks", r"\n", 0.1, 0.4),
        ("emoji", "[\U0001f300-\U0001faff❤]", 0.04, 0.2),
        ("all capitals", r"\A[^a-z]*[A-Z]{4}[^a-z]*\Z", 0.004, 0.05),
        ("a shouted sentence", r"\b[A-Z]{3,} [A-Z]{3,}\b", 0.03, 0.3),
        ("negated praise", r"(?i)\b(was|were)n't (great|good|amazing|perfect|nice)", 0.02, 0.3),
        ("negated blame", r"(?i)n't [a-z ]+ at all|not bad", 0.03, 0.4),
        ("contrast", r"(?i)\b(but|however|although|yet|still)\b", 0.2, 0.7),
        ("irony", r"(?i)oh sure|said nobody ever|great job|wow, just wow", 0.005, 0.1),
        ("off the topic", r"(?i)raining|bus stop|dog came|window|wedding", 0.05, 0.4),
        ("exclamation", "!", 0.2, 0.7),
    ],
)
def test_texts_are_written_as_people_write(
    tables: Tables, what: str, pattern: str, low: float, high: float
) -> None:
    assert low < tables.share(pattern) < high, what


def test_some_words_are_misspelt(tables: Tables) -> None:
    word = re.compile(r"[a-z]{5,}")
    said = [
        part
        for group in phrases.CATEGORIES
        for scope in phrases.scopes(group)
        for alternatives in scope.values()
        for parts in alternatives
        for part in parts
    ]
    said += [text for texts in phrases.SHORT.values() for text in texts]
    said += [*phrases.LAST_COUNTS, *phrases.FIRST_COUNTS, *phrases.JOINS]
    known = set(word.findall(" ".join(said).lower()))
    texts = [row["text"].lower() for row in tables.distinct]
    misspelt = sum(not known.issuperset(word.findall(text)) for text in texts)
    assert 0.1 < misspelt / len(texts) < 0.3


def test_texts_vary(tables: Tables) -> None:
    assert len({row["text"] for row in tables.distinct}) > 0.94 * len(tables.distinct)


def test_opinions_are_mixed_for_every_class(tables: Tables) -> None:
    praise = re.compile(r"(?i)\b(friendly|clean|fresh|amazing|perfect|great|quick)\b")
    blame = re.compile(r"(?i)\b(rude|dirty|bland|slow|overpriced|terrible|worst|late)\b")
    for classes in ({1, 2}, {3}, {4, 5}):
        texts = [row["text"] for row in tables.distinct if row["stars"] in classes]
        both = sum(bool(praise.search(text) and blame.search(text)) for text in texts)
        assert 0.03 < both / len(texts) < 0.7


def test_words_alone_tell_much_and_not_everything(tables: Tables) -> None:
    texts = [row["text"] for row in tables.distinct]
    labels = [0 if row["stars"] <= 2 else 1 if row["stars"] == 3 else 2 for row in tables.distinct]
    cut = len(texts) * 4 // 5
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2)
    train, test = words.fit_transform(texts[:cut]), words.transform(texts[cut:])
    linear = LogisticRegression(class_weight="balanced", max_iter=1000).fit(train, labels[:cut])
    predicted = linear.predict(test)
    assert 0.6 < f1_score(labels[cut:], predicted, average="weighted") < 0.95
    assert 0.55 < f1_score(labels[cut:], predicted, average="macro") < 0.9
    assert 0.11 < (predicted == 1).mean() < 0.2
    bayes = MultinomialNB().fit(train, labels[:cut])
    assert f1_score(labels[cut:], bayes.predict(test), average="weighted") < 0.95
