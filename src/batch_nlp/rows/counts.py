"""Conservation of rows: what is read is delivered, rejected or a duplicate."""

from __future__ import annotations

from dataclasses import asdict, dataclass


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
