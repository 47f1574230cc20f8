"""The class of a message, from its stars or from its own label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from batch_nlp.errors import InputError


@dataclass(frozen=True, kw_only=True)
class StarRule:
    """Stars to classes: few are negative, many are positive, those between are neutral.

    Parameters
    ----------
    negative : float, default=2
        Most stars that are still negative.
    positive : float, default=4
        Fewest stars that are already positive.

    Examples
    --------
    >>> rows = pd.DataFrame({"stars": [1.0, 3.0, 4.0, np.nan], "label": [np.nan] * 3 + [1.0]})
    >>> StarRule().apply(rows).tolist()
    [0.0, 1.0, 2.0, 1.0]
    """

    negative: float = 2
    positive: float = 4

    def __post_init__(self) -> None:
        if not self.negative < self.positive:
            message = (
                f"training.label.negative must be below training.label.positive, "
                f"got {self.negative} and {self.positive}."
            )
            raise InputError(message)

    def apply(self, rows: pd.DataFrame) -> pd.Series:
        """Give the class of each row.

        Parameters
        ----------
        rows : DataFrame
            With ``stars`` and ``label``; a label goes before stars.

        Returns
        -------
        Series of float
            0 negative, 1 neutral, 2 positive; NaN where a row has neither.
        """
        stars = rows["stars"]
        by_stars = pd.Series(
            np.select([stars <= self.negative, stars >= self.positive], [0.0, 2.0], default=1.0),
            index=rows.index,
        ).where(stars.notna())
        return rows["label"].fillna(by_stars)
