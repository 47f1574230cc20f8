"""The class of a message, from its stars or from its own label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
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


def grades(
    stars: pd.Series, target: npt.NDArray[np.int64], texts: pd.Series, *, fewest: int = 10
) -> npt.NDArray[np.int64] | None:
    """Give each row the whole star nearest to its own, as a finer kind of class.

    Parameters
    ----------
    stars : Series of float of shape (n_rows,)
        May be missing.
    target : ndarray of int of shape (n_rows,)
        Class of each row.
    texts : Series of str of shape (n_rows,)
        What is to be scored.
    fewest : int, default=10
        Different texts that a star needs: those of one are in one fold, and the scores of that
        fold would know nothing of the star.

    Returns
    -------
    ndarray of int of shape (n_rows,), or None
        A row without stars, with a star that is rare, or with one that mostly stands for another
        class than its own has the most frequent star of its class. None where a class has no
        star of its own, so that stars say less than the classes.

    Examples
    --------
    >>> stars = pd.Series([1, 2, 2, 3, 3, np.nan, 4.9, 5, 5])
    >>> target, texts = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2]), pd.Series(list("abcdefghi"))
    >>> grades(stars, target, texts, fewest=2).tolist()
    [2, 2, 2, 3, 3, 3, 5, 5, 5]
    >>> grades(stars * np.nan, target, texts) is None
    True
    """
    whole = stars.round().reset_index(drop=True)
    known = pd.Series(target)
    different = ~pd.DataFrame({"star": whole, "class": known, "text": texts.array}).duplicated()
    counts = pd.crosstab(known[different], whole[different])
    class_of = counts.idxmax(axis="index")
    own = counts.max(axis="index")
    usual = own[own >= fewest].sort_values().groupby(class_of).idxmax()
    if not np.isin(target, usual.index).all():
        return None
    right = whole.map(class_of).eq(known) & whole.map(own).ge(fewest)
    found: npt.NDArray[np.int64] = whole.where(right, known.map(usual)).to_numpy(dtype="int64")
    return found
