"""Synthetic data in Yelp's format at any size, with the shapes of the real data set.

    python -m benchmarks.scale.generate build/scale/1m 1000000

Reviews have 570 characters on average (sd 540, at most 5,000); users have long lists of friends,
so that a line has about 1,700 bytes. There are as many users and businesses for each review as in
the real data set. Texts are spans of what the program's own sample says with as many stars:
lengths and bytes are real, opinions are not. A file with the same size and seed has the same
content.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from batch_nlp.sample import Sample
from batch_nlp.tables import atomic_path
from batch_nlp.workers import cores, mapped

USERS, BUSINESSES, REVIEWS = 1_987_897, 150_346, 6_990_280
"""Rows of the real data set's tables."""

BLOCK = 20_000
MEAN_CHARACTERS, SD_CHARACTERS, MOST_CHARACTERS = 570, 540, 5_000
MEAN_FRIENDS, SD_FRIENDS, MOST_FRIENDS = 56, 130, 4_000

_ID_CHARACTERS = 22
_STARS = (0.15, 0.08, 0.10, 0.21, 0.46)
_CITIES = ("Philadelphia", "Tucson", "Tampa", "Indianapolis", "Nashville", "New Orleans", "Reno")
_STATES = ("PA", "AZ", "FL", "IN", "TN", "LA", "NV")
_CATEGORIES = (
    "Restaurants, Mexican",
    "Food, Coffee & Tea",
    "Beauty & Spas, Hair Salons",
    "Shopping, Books",
    "Bars, Nightlife",
    "Automotive, Auto Repair",
    "Health & Medical, Dentists",
)


def log_normal(
    random: np.random.Generator, n: int, mean: float, sd: float, most: int
) -> np.ndarray:
    """Draw whole numbers from 1 to `most` of about this mean and standard deviation."""
    spread = np.log1p((sd / mean) ** 2)
    drawn = random.lognormal(np.log(mean) - spread / 2, np.sqrt(spread), n)
    return np.clip(drawn, 1, most).astype(np.int64)


def ids(random: np.random.Generator, n: int) -> list[str]:
    """Draw identifiers of 22 characters, as the real data set has them."""
    text = base64.urlsafe_b64encode(random.bytes(18 * n)).decode()
    return [text[i : i + _ID_CHARACTERS] for i in range(0, 24 * n, 24)]


@dataclass(frozen=True)
class World:
    """What every block is drawn from; each process makes its own, and all are alike.

    Parameters
    ----------
    n_reviews : int
    seed : int
    """

    n_reviews: int
    seed: int = 7

    @property
    def n_users(self) -> int:
        return max(1, self.n_reviews * USERS // REVIEWS)

    @property
    def n_businesses(self) -> int:
        return max(1, self.n_reviews * BUSINESSES // REVIEWS)

    @cached_property
    def users(self) -> list[str]:
        return ids(np.random.default_rng([self.seed, 1]), self.n_users)

    @cached_property
    def businesses(self) -> list[str]:
        return ids(np.random.default_rng([self.seed, 2]), self.n_businesses)

    @cached_property
    def sentences(self) -> tuple[str, np.ndarray, np.ndarray]:
        """One long text, as it stands in JSON; where its words begin; those of each rating.

        Of a rating they are two rows of numbers: its first word, and the first one of those that
        are too near to its end to begin a span.
        """
        with TemporaryDirectory() as folder:
            written = Sample(n_reviews=16_000, seed=self.seed).write(Path(folder))
            texts: dict[object, list[str]] = {stars: [] for stars in range(1, 6)}
            for line in written.review.read_text(encoding="utf-8").splitlines():
                try:
                    review = json.loads(line)
                    # Long texts repeat themselves; spans are drawn from what is usual.
                    if 50 < len(review["text"]) < 2_000:
                        texts[review["stars"]].append(review["text"])
                except (ValueError, KeyError, TypeError):
                    continue  # the sample has broken lines on purpose
        parts = [json.dumps(" ".join(said), ensure_ascii=False)[1:-1] for said in texts.values()]
        long = " ".join(parts)
        words = np.flatnonzero(np.array(list(long)) == " ") + 1
        sizes = np.array([len(part) + 1 for part in parts])
        ends = np.cumsum(sizes)
        own = np.searchsorted(words, [ends - sizes, ends - MOST_CHARACTERS - 50])
        return long, words, own

    @cached_property
    def friends(self) -> str:
        return ", ".join(ids(np.random.default_rng([self.seed, 3]), 100_000))


@dataclass(frozen=True)
class Block:
    """Draws the lines of one block of a table.

    Parameters
    ----------
    world : World
    table : {"review", "user", "business"}
    """

    world: World
    table: str

    def rows(self) -> int:
        world = self.world
        counts = {"review": world.n_reviews, "user": world.n_users, "business": world.n_businesses}
        return counts[self.table]

    def __call__(self, number: int) -> bytes:
        first = number * BLOCK
        n = min(BLOCK, self.rows() - first)
        stream = {"review": 4, "user": 5, "business": 6}[self.table]
        random = np.random.default_rng([self.world.seed, stream, number])
        if self.table == "review":
            lines = self._reviews(random, n)
        elif self.table == "user":
            lines = self._users(random, self.world.users[first : first + n])
        else:
            lines = self._businesses(random, self.world.businesses[first : first + n])
        return "".join(lines).encode()

    def _reviews(self, random: np.random.Generator, n: int) -> list[str]:
        world = self.world
        users, businesses = world.users, world.businesses
        text, words, (lowest, beyond) = world.sentences
        rated = random.choice(5, n, p=_STARS)
        lengths = log_normal(random, n, MEAN_CHARACTERS, SD_CHARACTERS, MOST_CHARACTERS)
        begins = words[random.integers(lowest[rated], beyond[rated])]
        # Spans end with a word, so that no escaped character is cut.
        ends = words[np.searchsorted(words, begins + lengths)] - 1
        columns = zip(
            ids(random, n),
            random.integers(0, len(users), n).tolist(),
            random.integers(0, len(businesses), n).tolist(),
            rated.tolist(),
            random.geometric(0.5, n).tolist(),
            random.geometric(0.75, n).tolist(),
            begins.tolist(),
            ends.tolist(),
            moments(random, n, 2005, 2022),
            strict=True,
        )
        return [
            f'{{"review_id":"{own}","user_id":"{users[user]}","business_id":"{businesses[place]}",'
            f'"stars":{stars + 1}.0,"useful":{useful - 1},"funny":{funny - 1},"cool":{funny - 1},'
            f'"text":"{text[begin:end]}","date":"{date}"}}\n'
            for own, user, place, stars, useful, funny, begin, end, date in columns
        ]

    def _users(self, random: np.random.Generator, users: list[str]) -> list[str]:
        n = len(users)
        friends = self.world.friends
        counts = log_normal(random, n, MEAN_FRIENDS, SD_FRIENDS, MOST_FRIENDS)
        begins = random.integers(0, 100_000 - MOST_FRIENDS, n) * 24
        columns = zip(
            users,
            random.geometric(0.04, n).tolist(),
            moments(random, n, 2004, 2022),
            random.geometric(0.03, n).tolist(),
            begins.tolist(),
            (begins + counts * 24 - 2).tolist(),
            random.integers(0, 40, n).tolist(),
            strict=True,
        )
        return [
            f'{{"user_id":"{own}","name":"Sam","review_count":{reviews},"yelping_since":"{since}",'
            f'"useful":{useful},"funny":{useful // 3},"cool":{useful // 2},'
            f'"elite":"{"2018,2019" if elite == 0 else ""}","friends":"{friends[begin:end]}",'
            f'"fans":{useful // 20},"average_stars":3.7,"compliment_hot":0,"compliment_more":0,'
            f'"compliment_profile":0,"compliment_cute":0,"compliment_list":0,"compliment_note":0,'
            f'"compliment_plain":0,"compliment_cool":0,"compliment_funny":0,"compliment_writer":0,'
            f'"compliment_photos":0}}\n'
            for own, reviews, since, useful, begin, end, elite in columns
        ]

    def _businesses(self, random: np.random.Generator, businesses: list[str]) -> list[str]:
        n = len(businesses)
        columns = zip(
            businesses,
            random.integers(0, 7, n).tolist(),
            random.integers(0, 7, n).tolist(),
            random.geometric(0.02, n).tolist(),
            random.integers(0, 5, n).tolist(),
            strict=True,
        )
        return [
            f'{{"business_id":"{own}","name":"The Place","address":"1 Main St",'
            f'"city":"{_CITIES[city]}","state":"{_STATES[city]}","postal_code":"00000",'
            f'"latitude":39.95,"longitude":-75.16,"stars":3.5,"review_count":{reviews},'
            f'"is_open":{int(closed > 0)},"attributes":{{"WiFi":"u\'free\'","BikeParking":"True"}},'
            f'"categories":"{_CATEGORIES[kind]}","hours":null}}\n'
            for own, city, kind, reviews, closed in columns
        ]


def moments(random: np.random.Generator, n: int, first: int, last: int) -> list[str]:
    """Draw moments of some years, written as the real data set writes them."""
    start = np.datetime64(f"{first}-01-01T00:00:00")
    seconds = int((np.datetime64(f"{last}-01-01T00:00:00") - start).astype(int))
    drawn = start + random.integers(0, seconds, n).astype("timedelta64[s]")
    return np.char.replace(np.datetime_as_string(drawn), "T", " ").tolist()


def files(folder: Path) -> dict[str, Path]:
    """Name the files of the data set in `folder`."""
    return {table: folder / f"{table}.json" for table in ("user", "business", "review")}


def generate(folder: Path, n_reviews: int, *, processes: int | None = None) -> dict[str, Path]:
    """Write the data set where it is not there yet.

    Parameters
    ----------
    folder : Path
    n_reviews : int
    processes : int, optional
        By default one for each core.
    """
    world = World(n_reviews)
    written = files(folder)
    for table, path in written.items():
        if path.exists():
            continue
        block = Block(world, table)
        n_blocks = -(-block.rows() // BLOCK)
        with atomic_path(path) as beside, beside.open("wb") as stream:
            many = min(processes or cores(), n_blocks)
            for lines in mapped(block, range(n_blocks), processes=many):
                stream.write(lines)
    return written


if __name__ == "__main__":
    generate(Path(sys.argv[1]), int(sys.argv[2]))
