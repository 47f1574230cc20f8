"""Does the model still fit? Each class's share of the predictions is held against a band."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from batch_nlp.errors import InputError
from batch_nlp.schemas import LABELS


@dataclass(frozen=True)
class ShareVerdict:
    """What the shares of the classes say.

    Attributes
    ----------
    verdict : {"inside", "outside", "too few rows"}
        Whether every class is inside the band.
    n_rows : int
        Predictions counted.
    shares : dict of str to float
        Share of each class; 0 for one that was never predicted.
    training_shares : dict of str to float
        Shares of the labels that the model was trained on.
    outside : list of str
        Classes outside the band.
    low, high : float
        The band.
    """

    verdict: Literal["inside", "outside", "too few rows"]
    n_rows: int
    shares: dict[str, float]
    training_shares: dict[str, float]
    outside: list[str]
    low: float
    high: float

    @property
    def is_outside(self) -> bool:
        """Whether the model no longer fits."""
        return self.verdict == "outside"

    def to_dict(self) -> dict[str, Any]:
        """Give the verdict as plain data."""
        return asdict(self)

    def table(self) -> str:
        """Show the shares beside those of the training labels.

        Examples
        --------
        >>> verdict = ShareRule().judge([2, 20, 78], {"negative": 0.2})
        >>> print(verdict.table())
        class     predicted   trained   band 10-90 %
        negative      2.0 %    20.0 %   outside
        neutral      20.0 %         -   inside
        positive     78.0 %         -   inside
        """
        lines = [f"class     predicted   trained   band {100 * self.low:g}-{100 * self.high:g} %"]
        for label in LABELS:
            trained = self.training_shares.get(label)
            known = "-" if trained is None else f"{100 * trained:.1f} %"
            place = "outside" if label in self.outside else "inside"
            lines.append(f"{label:<9} {100 * self.shares[label]:>7.1f} %{known:>10}   {place}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class ShareRule:
    """The band that each class's share of the predictions must stay in.

    Parameters
    ----------
    low, high : float, default=0.10 and 0.90
        Smallest and largest share, bounds included.
    min_rows : int, default=100
        Predictions below which nothing is concluded.
    """

    low: float = 0.10
    high: float = 0.90
    min_rows: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            message = (
                "inference.shares needs 0 <= low < high <= 1, "
                f"got low={self.low} and high={self.high}."
            )
            raise InputError(message)
        if self.min_rows < 0:
            message = f"inference.shares.min_rows must be at least 0, got {self.min_rows}."
            raise InputError(message)

    def judge(self, counts: list[int], training_shares: Mapping[str, float]) -> ShareVerdict:
        """Hold the predicted classes against the band.

        Parameters
        ----------
        counts : list of 3 ints
            Predictions of each class.
        training_shares : mapping of str to float
            Shares of the training labels, to be shown beside.

        Returns
        -------
        ShareVerdict
        """
        n_rows = sum(counts)
        shares = {
            label: n / n_rows if n_rows else 0.0 for label, n in zip(LABELS, counts, strict=True)
        }
        judged = n_rows >= self.min_rows
        outside = [
            label
            for label, share in shares.items()
            if judged and not self.low <= share <= self.high
        ]
        verdict: Literal["inside", "outside", "too few rows"] = "outside" if outside else "inside"
        return ShareVerdict(
            verdict=verdict if judged else "too few rows",
            n_rows=n_rows,
            shares=shares,
            training_shares=dict(training_shares),
            outside=outside,
            low=self.low,
            high=self.high,
        )
