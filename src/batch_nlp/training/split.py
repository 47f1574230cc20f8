"""Which rows train the model and which judge it; a text is never on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from batch_nlp.errors import InputError

_MOST_FOLDS = 20
"""A random share is some of at most so many folds; a smaller one is one of more."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Hold some rows out.

    Parameters
    ----------
    by : {"auto", "time", "stratified"}, default="auto"
        ``time`` holds the newest rows out; ``stratified`` a random share with the same class
        shares; ``auto`` is ``time`` where every row has a date.
    test_share : float, default=0.2
        Share held out, between 0 and 0.5.
    seed : int, default=0
        Of the random share.
    """

    by: Literal["auto", "time", "stratified"] = "auto"
    test_share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.test_share <= 0.5:
            message = (
                f"training.split.test_share must be above 0 and at most 0.5, got {self.test_share}."
            )
            raise InputError(message)

    def method(self, dates: pd.Series) -> Literal["time", "stratified"]:
        """Tell what ``auto`` comes to for rows of these dates."""
        if self.by == "auto":
            return "time" if dates.notna().all() else "stratified"
        return self.by

    def held_out(
        self, dates: pd.Series, texts: pd.Series, classes: npt.ArrayLike
    ) -> npt.NDArray[np.bool_]:
        """Tell which rows are held out.

        Parameters
        ----------
        dates : Series of datetime64 of shape (n_rows,)
            When each message was written.
        texts : Series of str of shape (n_rows,)
            Rows with the same text stay together: with `time`, a text that is among the newest
            is held out in all its rows.
        classes : array-like of shape (n_rows,)
            The class of each row.

        Returns
        -------
        ndarray of bool of shape (n_rows,)

        Raises
        ------
        InputError
            If rows are split by time and one has no date, or there are too few rows for a
            random share.
        """
        groups = pd.factorize(texts)[0]
        if self.method(dates) == "stratified":
            share = Fraction(self.test_share).limit_denominator(
                max(_MOST_FOLDS, round(1 / self.test_share))
            )
            n_splits = share.denominator
            fewest = min(groups.max() + 1, *np.unique(classes, return_counts=True)[1])
            if fewest < n_splits:
                message = (
                    f"training.split.test_share={self.test_share} needs at least {n_splits} "
                    f"different texts, and as many rows of each class; there are {fewest}."
                )
                raise InputError(message)
            folds = StratifiedGroupKFold(n_splits=n_splits, shuffle=True, random_state=self.seed)
            splits = islice(folds.split(groups, classes, groups), share.numerator)
            held = np.concatenate([test for _, test in splits])
            return np.isin(np.arange(len(groups)), held)
        if dates.isna().any():
            message = (
                f"training.split.by=time needs a date in every row; {int(dates.isna().sum())} of "
                f"{len(dates)} have none. Use training.split.by=stratified."
            )
            raise InputError(message)
        order = np.argsort(dates.to_numpy(), kind="stable")
        newest = order[len(order) - round(len(order) * self.test_share) :]
        return np.isin(groups, groups[newest])
