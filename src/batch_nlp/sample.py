"""A synthetic data set in the format of the Yelp Open Dataset, to try the program on.

Everything in it is made up, and it is called synthetic wherever it is shown. It has the troubles of
real data: opinions that are mixed, negated or ironic, texts of one emoji and of 5,000 characters,
stars that disagree with the text, users and businesses that are in no table, the same review twice,
lines that are not JSON, values that break the contract.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from batch_nlp import sample_phrases as phrases
from batch_nlp.errors import InputError
from batch_nlp.tables import atomic_path, file_digest, write_json

VERSION = 1
"""Raised with every change of what is written, so that an older sample is written again."""

LONGEST = 5_000
"""Most characters in a text."""

_FIRST_DAY, _LAST_DAY = date(2012, 1, 1).toordinal(), date(2021, 12, 31).toordinal()
_FIRST_JOINED, _LAST_JOINED = date(2006, 1, 1).toordinal(), date(2021, 9, 30).toordinal()

# Weights are written as repetitions: a draw is one look-up.
_GROUPS = ("restaurant",) * 7 + ("bar", "health", "shopping", "beauty", "automotive", "other")
_KINDS = (0, 0, 0, 1, 1, 1, 2, 2, 3, 4)
_TEMPERS = (-1, -1, -1, 0, 0, 0, 0, 1, 1, 1)
_ENDS = (". ",) * 12 + ("! ", "! ", "... ")

# Shares of 1 to 5 stars, and how much each moves with a step of a business's or a user's temper.
_STARS = ((0.14, -0.05), (0.09, -0.02), (0.14, -0.01), (0.21, 0.02), (0.42, 0.06))

# The stars that a text is written for, given the stars that go with it: people are inconsistent.
_TONES = {
    1: (1,) * 18 + (2, 3),
    2: (2,) * 17 + (1, 1, 3),
    3: (3,) * 18 + (2, 4),
    4: (4,) * 16 + (5, 5, 5, 3),
    5: (5,) * 19 + (3,),
}
# Per tone: the shares of pro and of con among its opinions, and the side that its last word takes.
_MIXES = {
    1: (0.06, 0.88, "con"),
    2: (0.13, 0.74, "con"),
    3: (0.31, 0.31, "even"),
    4: (0.76, 0.09, "pro"),
    5: (0.89, 0.04, "pro"),
}

_T = TypeVar("_T")
_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, kw_only=True)
class SampleFiles:
    """Where the three tables of a sample are."""

    review: Path
    user: Path
    business: Path


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A synthetic data set, the same bytes for the same parameters on any machine.

    Parameters
    ----------
    n_reviews : int, default=3000
        Lines of the review file, the faulty ones included. From 100 lines on, about 0.1 % are not
        JSON and about 0.2 % break the contract (at least 3 and 6 of them).
    seed : int, default=7
        Another seed gives other reviews, users and businesses.

    Raises
    ------
    InputError
        If a parameter is not an integer, or `n_reviews` is below 1.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = Sample(n_reviews=50).write(Path(folder))
    ...     len(files.review.read_bytes().splitlines())
    50
    """

    n_reviews: int = 3000
    seed: int = 7

    def __post_init__(self) -> None:
        if type(self.n_reviews) is not int or self.n_reviews < 1:
            raise InputError(
                f"Sample: n_reviews must be an integer of at least 1, got {self.n_reviews!r}."
            )
        if type(self.seed) is not int:
            raise InputError(f"Sample: seed must be an integer, got {self.seed!r}.")

    def write(self, folder: Path) -> SampleFiles:
        """Write the sample, unless the very same one is there.

        Parameters
        ----------
        folder : Path
            Where the three files, and the ``sample.json`` that describes them, go. Made if missing.

        Returns
        -------
        SampleFiles
            Their paths, named as in the Yelp Open Dataset.
        """
        paths = {
            table: folder / f"yelp_academic_dataset_{table}.json"
            for table in ("review", "user", "business")
        }
        manifest = folder / "sample.json"
        about = {"generator": VERSION, "n_reviews": self.n_reviews, "seed": self.seed}
        if not _is_there(manifest, about, list(paths.values())):
            world = _World(self.n_reviews, self.seed)
            rows = {"review": world.reviews, "user": world.users, "business": world.businesses}
            digests = {
                path.name: _write_lines(path, rows[table]()) for table, path in paths.items()
            }
            # Last: a run cut short leaves no manifest that agrees with its files.
            write_json(manifest, about | {"synthetic": True, "sha256": digests})
        return SampleFiles(**paths)


def _is_there(manifest: Path, about: dict[str, int], paths: Sequence[Path]) -> bool:
    try:
        found = json.loads(manifest.read_bytes())
        digests = {path.name: file_digest(path) for path in paths}
    except (FileNotFoundError, ValueError, InputError):  # none, or a damaged one: write it again
        return False
    return bool(found == about | {"synthetic": True, "sha256": digests})


def _write_lines(path: Path, lines: Iterator[str]) -> str:
    """Write the lines as UTF-8 and give the SHA-256 of the file."""
    digest = hashlib.sha256()
    with atomic_path(path) as beside, beside.open("wb") as stream:
        while batch := list(islice(lines, 500)):
            block = ("\n".join(batch) + "\n").encode()
            digest.update(block)
            stream.write(block)
    return digest.hexdigest()


class _World:
    """Users, businesses and what the ones say of the others, drawn line by line.

    A user or a business is computed from its number and never kept, so memory does not grow with
    the number of reviews. All chance comes from `Random.random`, and its numbers are only added,
    multiplied, divided and compared: the other methods of `Random`, and powers and logarithms, may
    differ between versions of Python or between machines.
    """

    def __init__(self, n_reviews: int, seed: int) -> None:
        self.n_reviews = n_reviews
        self.seed = seed
        self.n_users = max(1, n_reviews * 2 // 5)
        self.n_businesses = max(1, n_reviews // 12)

    def _chance(self, table: str) -> Callable[[], float]:
        # Repeatable on purpose; nothing secret is made with it.
        return Random(f"{self.seed} {table}").random  # noqa: S311  # nosec B311

    def _entity(self, kind: str, number: int) -> tuple[str, bytes]:
        """Give the id of something, and bytes of its own to derive its nature from."""
        digest = hashlib.blake2b(f"{self.seed} {kind} {number}".encode(), digest_size=20).digest()
        return base64.urlsafe_b64encode(digest[:16])[:22].decode(), digest[16:]

    def users(self) -> Iterator[str]:
        """Yield the lines of the user table."""
        chance = self._chance("user")
        for number in range(self.n_users):
            user_id, own = self._entity("user", number)
            joined = _joined(own)
            active = 1 + int(30 * chance() * chance() + chance() * self.n_users / (number + 1))
            elite: list[int] = []
            if active > 5 and chance() < 0.2:
                first = max(2010, date.fromordinal(joined).year + int(4 * chance()))
                elite = list(range(first, min(2021, first + int(7 * chance())) + 1))
            n_friends = int(12 * chance() * chance()) if chance() < 0.6 else 0
            friends = [
                self._entity("user", int(2 * self.n_users * chance()))[0] for _ in range(n_friends)
            ]
            row = {
                "user_id": user_id,
                "name": _pick(chance, phrases.NAMES),
                "review_count": active,
                "yelping_since": _moment(joined, chance),
                "useful": int(active * 3 * chance()),
                "funny": int(active * chance()),
                "cool": int(active * 2 * chance()),
                # The published files write the year 2020 as "20,20".
                "elite": ",".join(map(str, elite)).replace("2020", "20,20"),
                "friends": ", ".join(friends) or "None",
                "fans": int(active * chance() * chance() / 8),
                "average_stars": round(3.0 + 0.6 * _temper(own) + 1.4 * chance(), 2),
            }
            yield _json(row)

    def businesses(self) -> Iterator[str]:
        """Yield the lines of the business table."""
        chance = self._chance("business")
        for number in range(self.n_businesses):
            business_id, own = self._entity("business", number)
            group = _group(own)
            city, state, north, east = _pick(chance, phrases.TOWNS)
            attributes = {
                "BusinessAcceptsCreditCards": str(chance() < 0.9),
                "RestaurantsPriceRange2": str(1 + int(3 * chance())),
                "WiFi": "u'free'" if chance() < 0.5 else "u'no'",
                "BusinessParking": f"{{'street': {chance() < 0.5}, 'lot': {chance() < 0.5}}}",
            }
            hours = {
                day: f"{7 + int(4 * chance())}:0-{16 + int(7 * chance())}:30"
                for day in ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
            }
            row = {
                "business_id": business_id,
                "name": f"{_pick(chance, phrases.BRANDS)} {number + 1}",
                "address": f"{1 + int(9_000 * chance())} {_pick(chance, phrases.STREETS)}",
                "city": city,
                "state": state,
                "postal_code": f"{int(100_000 * chance()):05d}",
                "latitude": round(north + chance() / 5, 7),
                "longitude": round(east + chance() / 5, 7),
                "stars": round(2 * (2.9 + 0.7 * _temper(own) + 1.3 * chance())) / 2,
                "review_count": 5 + int(20 * chance() / (chance() + 0.05)),
                "is_open": int(chance() < 0.8),
                "attributes": attributes if chance() < 0.9 else None,
                "categories": _pick(chance, phrases.CATEGORIES[group]) if chance() < 0.96 else None,
                "hours": hours if chance() < 0.85 else None,
            }
            yield _json(row)

    def reviews(self) -> Iterator[str]:
        """Yield the lines of the review table, the repeated and the faulty ones included."""
        chance = self._chance("review")
        writer = _Writer(chance)
        earlier: deque[dict[str, Any]] = deque(maxlen=200)
        n = self.n_reviews
        n_malformed = max(3, n // 1000) if n >= 100 else 0
        for number in range(n):
            row = self._review(number, chance, writer)
            roll = chance() if len(earlier) > 20 else 1.0
            if roll < 0.01:  # the words of somebody else
                other = _pick(chance, earlier)
                row |= {"stars": other["stars"], "text": other["text"]}
            elif roll < 0.013:  # the same line again
                row = _pick(chance, earlier)
            elif roll < 0.016:  # the same id, written anew
                row["review_id"] = _pick(chance, earlier)["review_id"]
            earlier.append(row)
            line = _json(row)
            if nth := _due(2 * number * n_malformed, 2 * n_malformed, 2 * n):
                line = (line[: len(line) // 2], line[1:], "-- connection lost --")[nth % 3]
            elif nth := _due(4 * number * n_malformed + n, 4 * n_malformed, 2 * n):
                impossible = row["date"][:5] + "02-30" + row["date"][10:]
                faults = ({"stars": 0.0}, {"text": None}, {"date": impossible}, {"stars": 6.0})
                line = _json(row | faults[nth % 4])
            yield line

    def _review(self, number: int, chance: Callable[[], float], writer: _Writer) -> dict[str, Any]:
        # The product of two draws favours low numbers: some write and receive many reviews.
        known = chance() < 0.9
        user = int(self.n_users * chance() * chance())
        user_id, user_own = self._entity("user" if known else "stranger", user)
        known = chance() < 0.97
        business = int(self.n_businesses * chance() * chance())
        business_id, business_own = self._entity("business" if known else "unlisted", business)
        first = max(_FIRST_DAY, _joined(user_own) + 1)
        day = first + int((_LAST_DAY + 1 - first) * chance())
        when = _moment(day, chance)
        year = int(when[:4])
        # The years move the stars a little, as real ones do.
        tilt = _temper(user_own) + _temper(business_own) + (year - 2017) / 20
        stars, draw = 0, chance()
        while draw >= 0 and stars < len(_STARS):
            share, slope = _STARS[stars]
            draw -= share + slope * tilt
            stars += 1
        return {
            "review_id": self._entity("review", number)[0],
            "user_id": user_id,
            "business_id": business_id,
            "stars": float(stars),
            "useful": int(0.3 / (chance() + 0.01)),
            "funny": int(0.12 / (chance() + 0.01)),
            "cool": int(0.18 / (chance() + 0.01)),
            "text": writer.text(_group(business_own), stars, year),
            "date": when,
        }


class _Writer:
    """Writes what one thinks of a place, in as many words as come to mind."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._scopes = {group: phrases.scopes(group) for group in phrases.CATEGORIES}

    def _say(self, symbol: str, scope: phrases.Scope) -> str:
        options = scope[symbol]
        parts = options[int(self._chance() * len(options))]
        said = parts[0]
        for at in range(1, len(parts), 2):
            said += self._say(parts[at], scope) + parts[at + 1]
        return said

    def text(self, group: str, stars: int, year: int) -> str:
        """Write a text about a business of `group` that goes with `stars`."""
        chance = self._chance
        tone = _pick(chance, _TONES[stars])
        pro, con, side = _MIXES[tone]
        draw = chance()
        if draw < 0.03:
            return _pick(chance, phrases.SHORT[side])
        n_opinions = 2 + int(13 * chance() * chance())
        if draw > 0.987:
            n_opinions = 25 + int(70 * chance())
        if side == "con" and chance() < 0.04:  # an ironic text: praise, and not meant
            pro, con = con, pro
        scopes = self._scopes[group]
        said = []
        if chance() < 0.6:
            said.append(self._say(f"{side}.open" if chance() < 0.5 else "open", scopes[0]))
        for _ in range(n_opinions):
            if chance() < 0.25:
                recent = year >= 2020 and chance() < 0.1
                said.append(self._say("era" if recent else "filler", scopes[0]))
            draw = chance()
            opinion = "pro" if draw < pro else "con" if draw < pro + con else "even"
            said.append(self._opinion(opinion, side, scopes))
        if chance() < 0.6:
            said.append(self._say(f"{side}.close" if chance() < 0.6 else "close", scopes[0]))
        return self._finish(said, side, year)

    def _opinion(self, opinion: str, side: str, scopes: Sequence[phrases.Scope]) -> str:
        chance = self._chance
        scope = scopes[_pick(chance, _KINDS)]
        if opinion == side == "con" and chance() < 0.04:
            return self._say("irony", scope)
        said = self._say(opinion, scope)
        draw = chance()
        if draw < 0.2 and opinion != "even":
            against = self._say("con" if opinion == "pro" else "pro", scopes[_pick(chance, _KINDS)])
            if draw < 0.14:
                return against + _pick(chance, phrases.LAST_COUNTS) + said
            return said + _pick(chance, phrases.FIRST_COUNTS) + against
        if draw > 0.85:
            said += _pick(chance, phrases.JOINS) + self._say(opinion, scopes[_pick(chance, _KINDS)])
        return said

    def _finish(self, said: list[str], side: str, year: int) -> str:
        """Set sentences as people type them: shouted, in lower case, misspelt, in paragraphs."""
        chance = self._chance
        breaks = chance() < 0.35
        text = ""
        for sentence in said:
            shouted = sentence.upper() if chance() < 0.02 else sentence
            text += shouted[0].upper() + shouted[1:] + _pick(chance, _ENDS)
            if breaks and chance() < 0.25:
                text = text[:-1] + ("\n\n" if chance() < 0.7 else "\n")
        text = text.rstrip()[:LONGEST]
        draw = chance()
        if draw < 0.012:
            text = text.upper()
        elif draw < 0.06:
            text = text.lower()
        if chance() < 0.25:
            for _ in range(1 + int(3 * chance())):
                text = _misspelt(text, chance)
        if chance() < 0.04 + 0.008 * (year - 2012) and len(text) < LONGEST - 5:
            text += " " + _pick(chance, phrases.EMOJI[side]) * (1 + int(3 * chance() * chance()))
        return text


def _pick(chance: Callable[[], float], options: Sequence[_T]) -> _T:
    return options[int(chance() * len(options))]


def _due(passed: int, step: int, every: int) -> int:
    """Count how many times `every` has been reached when this step reaches it, else 0."""
    reached = (passed + step) // every
    return reached if reached > passed // every else 0


def _misspelt(text: str, chance: Callable[[], float]) -> str:
    """Swap, drop or double a letter inside a word, where chance falls on one."""
    at = int(chance() * len(text))
    pair = text[at : at + 2]
    if len(pair) < 2 or not pair.isalpha():
        return text
    changed = _pick(chance, (pair[::-1], pair[0], pair[0] + pair))
    return (text[:at] + changed + text[at + 2 :])[:LONGEST]


def _moment(day: int, chance: Callable[[], float]) -> str:
    second = int(86_400 * chance())
    clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
    return f"{date.fromordinal(day).isoformat()} {clock}"


def _joined(own: bytes) -> int:
    days = _LAST_JOINED + 1 - _FIRST_JOINED
    return _FIRST_JOINED + (own[0] * 256 + own[1]) * days // 65_536


def _temper(own: bytes) -> int:
    return _TEMPERS[own[2] * 10 // 256]


def _group(own: bytes) -> str:
    return _GROUPS[own[3] * len(_GROUPS) // 256]
