"""What every step shares: a frame in, the same rows out, and errors that name the column."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


_SHOWN_COLUMNS = 30


class MissingColumnError(ValueError):
    """A step's input lacks a column that the step needs."""


class FrameStep(TransformerMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """A step that takes a pandas frame and returns one with the same rows and index.

    A step keeps the columns that it finds, in their order, and puts its own behind them; a
    column that already has the name of one of its own is replaced where it stands. The input
    frame is never changed.

    Subclass `RowLocalStep` or `LearningStep` rather than this class.

    Attributes
    ----------
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns seen in `fit`.
    n_features_in_ : int
        Number of columns seen in `fit`.
    """

    @abstractmethod
    def _columns_needed(self) -> Sequence[str]:
        """Return the columns that the input must have."""

    def _columns_added(self) -> Sequence[str]:
        """Return the columns that `transform` adds, in order."""
        return ()

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:  # noqa: ARG002
        """Return the added columns, in the order of `_columns_added`, as arrays of len(X)."""
        return {}

    def _apply(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the transformed frame of a checked input."""
        added = self._derive(X)
        kept: pd.DataFrame = X.assign(**{name: added[name] for name in added if name in X.columns})
        new = pd.DataFrame(
            {name: added[name] for name in added if name not in X.columns}, index=X.index
        )
        # One concatenation keeps the frame in few blocks, however many columns are added.
        return pd.concat([kept, new], axis="columns")

    def _names_out(self, names: list[str]) -> list[str]:
        """Return the names of the columns that come out, given those that go in."""
        return names + [column for column in self._columns_added() if column not in names]

    def _check_parameters(self) -> None:
        """Raise ValueError where a parameter's value makes no sense."""

    def _check(self, X: pd.DataFrame) -> None:
        """Check the parameters, then the input's columns."""
        columns = getattr(self, "columns", ())
        if isinstance(columns, str):
            raise ValueError(  # noqa: TRY004
                f"{type(self).__name__}: columns must be a sequence of names; got {columns!r}."
            )
        self._check_parameters()
        self._require(X)

    def _require(self, X: pd.DataFrame, columns: Iterable[str] | None = None) -> None:
        """Check that `X` is a frame that has `columns`, by default those that the step needs.

        Raises
        ------
        TypeError
            If `X` is not a pandas frame.
        MissingColumnError
            If a column is missing; the message names the step and the column.
        """
        name = type(self).__name__
        if not isinstance(X, pd.DataFrame):
            raise TypeError(f"{name} takes a pandas DataFrame; got {type(X).__name__}.")
        needed = self._columns_needed() if columns is None else columns
        missing = [column for column in needed if column not in X.columns]
        if missing:
            there = [str(column) for column in X.columns]
            shown = f"{there[:_SHOWN_COLUMNS]}" + (
                f" and {len(there) - _SHOWN_COLUMNS} more" if len(there) > _SHOWN_COLUMNS else ""
            )
            raise MissingColumnError(
                f"{name} needs columns {missing}, which the input lacks; it has {shown}."
            )

    def _numbers(self, X: pd.DataFrame, column: str) -> NDArray[np.float64]:
        """Return one column as floats, NaN where a value is missing.

        Raises
        ------
        ValueError
            If the column is not numeric.
        """
        values = X[column]
        if not pd.api.types.is_numeric_dtype(values.dtype):
            raise ValueError(
                f"{type(self).__name__} needs column '{column}' to be numeric; "
                f"its dtype is {values.dtype}."
            )
        return values.to_numpy(dtype=np.float64, na_value=np.nan)

    def _dates(self, X: pd.DataFrame, column: str) -> pd.Series[Any]:
        """Return one column of dates as it is.

        Raises
        ------
        ValueError
            If the column does not hold dates.
        """
        values = X[column]
        if not pd.api.types.is_datetime64_any_dtype(values.dtype):
            raise ValueError(
                f"{type(self).__name__} needs column '{column}' to hold dates (datetime64); "
                f"its dtype is {values.dtype}."
            )
        return values

    def _remember_input(self, X: pd.DataFrame) -> None:
        self.feature_names_in_ = np.asarray(X.columns, dtype=object)
        self.n_features_in_ = X.shape[1]

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[Any]:
        """Return the names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : sequence of str, optional
            Names of the input's columns; by default those seen in `fit`.

        Returns
        -------
        ndarray of shape (n_columns,)
            Names in the order of the columns.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the step has not seen an input and none is named.
        """
        check_is_fitted(self)
        if input_features is None:
            check_is_fitted(self, "feature_names_in_")
            input_features = list(self.feature_names_in_)
        return np.asarray(self._names_out(list(input_features)), dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.input_tags.allow_nan = True
        return tags


class RowLocalStep(FrameStep):
    """A step that works each row out from that row alone, so it needs no fitting."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002
        """Check that the columns are there; nothing is learned.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_rows, n_columns)
            Rows with the columns that the step needs.
        y : object, optional
            Ignored.

        Returns
        -------
        self
            The step itself.
        """
        self._check(X)
        self._remember_input(X)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` with the step's columns added.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_rows, n_columns)
            Rows with the columns that the step needs.

        Returns
        -------
        pandas.DataFrame of shape (n_rows, n_columns + n_added)
            A new frame with the index of `X`.

        Raises
        ------
        ValueError
            If a column is missing or has an unfit dtype, or a parameter makes no sense.
        """
        self._check(X)
        return self._apply(X)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags


class LearningStep(FrameStep):
    """A step that learns from the training rows in `fit` and only applies it in `transform`."""

    @abstractmethod
    def _learn(self, X: pd.DataFrame) -> None:
        """Set the learned attributes from the training rows."""

    def fit(self, X: pd.DataFrame, y: object = None) -> Self:  # noqa: ARG002
        """Learn from the training rows.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_rows, n_columns)
            Training rows, at least one.
        y : object, optional
            Ignored: the label teaches these steps nothing.

        Returns
        -------
        self
            The fitted step.

        Raises
        ------
        ValueError
            If there is no row, a column is missing or has an unfit dtype, or a parameter makes
            no sense.
        """
        self._check(X)
        if len(X) == 0:
            raise ValueError(f"{type(self).__name__} needs at least one row to learn from; got 0.")
        self._learn(X)
        self._remember_input(X)
        return self

    def transform(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return `X` with what was learned applied to each row.

        Parameters
        ----------
        X : pandas.DataFrame of shape (n_rows, n_columns)
            Rows with the columns that the step needs.

        Returns
        -------
        pandas.DataFrame of shape (n_rows, n_columns_out)
            A new frame with the index of `X`.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the step has not been fitted.
        ValueError
            If a column is missing or has an unfit dtype.
        """
        check_is_fitted(self)
        self._require(X)
        return self._apply(X)
