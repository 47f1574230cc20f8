"""Conservation of rows: what is read is delivered, rejected or a duplicate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

REFERENCES = ("user", "business")
"""Steps that read tables of their own and no messages."""

IN_TURN = {
    "training": ("label", "split"),
    "inference": ("extract", "deduplicate", "validate", "features", "predict"),
    "explain": ("extract", "deduplicate", "validate"),
}
"""Steps of a package that hand all rows on to the next, where other steps take a part of them."""


@dataclass
class Counts:
    """Where the rows of one stage went.

    Attributes
    ----------
    read, delivered, rejected, duplicates : int
        Rows; `read` is the sum of the other three.
    """

    read: int = 0
    delivered: int = 0
    rejected: int = 0
    duplicates: int = 0

    def to_dict(self) -> dict[str, int]:
        """Give the counts as plain data."""
        return asdict(self)

    def __add__(self, other: Counts) -> Counts:
        """Give the counts of the rows of both.

        Examples
        --------
        >>> Counts(read=1, rejected=1) + Counts(read=2, delivered=2)
        Counts(read=3, delivered=2, rejected=1, duplicates=0)
        """
        own, others = self.to_dict(), other.to_dict()
        return Counts(**{name: own[name] + others[name] for name in own})

    def check(self, stage: str) -> None:
        """Raise if a row went missing.

        Raises
        ------
        RuntimeError
            If the counts do not add up.

        Examples
        --------
        >>> Counts(read=3, delivered=2).check("extract")
        Traceback (most recent call last):
        RuntimeError: Stage extract lost rows: read 3, delivered 2, rejected 0, duplicates 0.
        """
        if self.read != self.delivered + self.rejected + self.duplicates:
            message = (
                f"Stage {stage} lost rows: read {self.read}, delivered {self.delivered}, "
                f"rejected {self.rejected}, duplicates {self.duplicates}."
            )
            raise RuntimeError(message)


def totals(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Counts]:
    """Sum the stages of each package, from the rows that came in to those that came out.

    Parameters
    ----------
    stages : mapping of str to mapping
        Counts by ``<package>/<step>``; the ones of a second pass end in ``#2``.

    Returns
    -------
    dict of str to Counts
        By package and pass. They add up only if each stage read what the one before delivered.

    Examples
    --------
    >>> stages = {
    ...     "feature/extract": {"read": 5, "delivered": 4, "rejected": 1, "duplicates": 0},
    ...     "feature/deduplicate": {"read": 4, "delivered": 3, "rejected": 0, "duplicates": 1},
    ... }
    >>> totals(stages)
    {'feature': Counts(read=5, delivered=3, rejected=1, duplicates=1)}
    """
    found: dict[str, Counts] = {}
    for name, stage in stages.items():
        package, _, rest = name.partition("/")
        step, mark, nth = rest.partition("#")
        if step in REFERENCES or step not in IN_TURN.get(package, (step,)):
            continue
        whole = found.setdefault(f"{package}{mark}{nth}", Counts(read=stage["read"]))
        whole.delivered = stage["delivered"]
        whole.rejected += stage["rejected"]
        whole.duplicates += stage["duplicates"]
    return found
