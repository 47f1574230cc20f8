"""The text's vector, as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batch_nlp.embedders import Embedder, Encoded
from batch_nlp.transformers.base import RowLocalStep

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


class TextEmbedder(RowLocalStep):
    """Add the vector of each row's text; texts that occur more than once are embedded once.

    Parameters
    ----------
    embedder : Embedder, optional
        What turns texts into vectors. None adds no column and needs none.
    column : str, default="clean_text"
        Column of texts. A missing text counts as an empty one.
    prefix : str, default="embedding"
        The added float32 columns are ``<prefix>_000``, ``<prefix>_001`` and so on, one for each
        dimension of `embedder`.

    Examples
    --------
    >>> from batch_nlp.embedders import HashingEmbedder
    >>> step = TextEmbedder(embedder=HashingEmbedder(n_features=2))
    >>> step.transform(pd.DataFrame({"clean_text": ["good", "good good", ""]}))
      clean_text  embedding_000  embedding_001
    0       good            0.0            1.0
    1  good good            0.0            1.0
    2                       0.0            0.0
    """

    def __init__(
        self,
        *,
        embedder: Embedder | None = None,
        column: str = "clean_text",
        prefix: str = "embedding",
    ) -> None:
        self.embedder = embedder
        self.column = column
        self.prefix = prefix

    def encode_distinct(self, texts: Iterable[str | None]) -> Encoded:
        """Return the vector of each text, with each distinct text embedded once.

        Parameters
        ----------
        texts : iterable of str or missing values
            A missing text counts as an empty one.

        Returns
        -------
        Encoded
            `vectors` of shape (n_texts, n_dims), float32, and `truncated` of shape (n_texts,),
            which says of each text whether it was cut short; in the order of `texts`.
        """
        series = pd.Series(texts, dtype="str").fillna("")
        if self.embedder is None:
            return Encoded(
                np.zeros((len(series), 0), dtype=np.float32), np.zeros(len(series), dtype=np.bool_)
            )
        codes, distinct = pd.factorize(series)
        vectors, truncated = self.embedder.encode(distinct.tolist())
        return Encoded(vectors[codes], truncated[codes])

    def vector_frame(self, vectors: NDArray[np.float32], index: pd.Index[Any]) -> pd.DataFrame:
        """Give vectors the names that `transform` gives them.

        Parameters
        ----------
        vectors : ndarray of shape (n_rows, n_dims)
            As `encode_distinct` returns them.
        index : Index of length n_rows
            Of the frame.

        Returns
        -------
        pandas.DataFrame of shape (n_rows, n_dims)
            The columns ``<prefix>_000`` and so on, behind `index`.
        """
        return pd.DataFrame(vectors, index=index, columns=list(self._columns_added()))

    def _columns_needed(self) -> Sequence[str]:
        return [] if self.embedder is None else [self.column]

    def _columns_added(self) -> Sequence[str]:
        n_dims = 0 if self.embedder is None else self.embedder.n_dims
        width = max(3, len(str(n_dims - 1)))
        return [f"{self.prefix}_{i:0{width}d}" for i in range(n_dims)]

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        if self.embedder is None:
            return {}
        vectors = self.encode_distinct(X[self.column]).vectors
        return dict(zip(self._columns_added(), vectors.T, strict=True))
