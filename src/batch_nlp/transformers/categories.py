"""The step that sorts the categories of a business into a few groups."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from batch_nlp.transformers.base import RowLocalStep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# fmt: off
CATEGORY_GROUPS: Mapping[str, Sequence[str]] = MappingProxyType({
    "restaurant": (
        "restaurant", "acai bowls", "bagel", "bakery", "bakeries", "barbeque", "breakfast",
        "brunch", "bubble tea", "buffet", "burger", "cafe", "cake shop", "caterer",
        "chicken wings", "coffee", "creperie", "delis", "dessert", "diner", "donut",
        "fast food", "food court", "food stand", "food truck", "gelato", "ice cream", "juice bar",
        "pizza", "sandwiches", "seafood", "soul food", "steakhouse", "street vendor", "sushi",
        "tea room",
    ),
    "bar": (
        "bar", "brewery", "breweries", "brewpub", "dance club", "gastropub", "karaoke", "lounge",
        "nightlife", "pub", "speakeasies", "winery", "wineries",
    ),
    "health": (
        "health & medical", "acupuncture", "chiropractor", "counseling & mental health",
        "dentist", "doctor", "hospital", "massage therapy", "medical center", "nutritionist",
        "optometrist", "pharmacy", "physical therapy", "urgent care", "weight loss center",
    ),
    "shopping": (
        "shopping", "antiques", "bookstore", "clothing", "convenience store", "department store",
        "discount store", "drugstore", "electronics", "farmers market", "fashion", "florist",
        "flowers & gifts", "furniture store", "grocery", "hardware store", "health market",
        "home decor", "jewelry", "pet store", "public market", "specialty food",
        "sporting goods", "thrift store", "tobacco shop", "vape shop", "wholesaler",
        "wine & spirits",
    ),
    "beauty": (
        "beauty", "barber", "cosmetics", "day spa", "eyelash service", "hair removal",
        "hair salon", "makeup", "massage", "medical spa", "nail salon", "piercing", "skin care",
        "spas", "tanning", "tattoo", "waxing",
    ),
    "automotive": (
        "automotive", "auto", "body shop", "car dealer", "car wash", "gas station", "motorcycle",
        "oil change station", "parking", "tires", "towing",
    ),
})
# fmt: on
"""Words and phrases of Yelp's category names, by group; the first group that fits counts."""


class CategoryGroups(RowLocalStep):
    """Add the group that a business's categories fall in, and how many categories it has.

    A group fits when one of its words or phrases stands in the text as a whole, in any case and
    with or without a plural s: "bar" is found in "Sports Bars", but not in "Barbers". The first
    group that fits, in the mapping's order, is the one. Missing and empty categories are of the
    group `default` and count 0; `MissingIndicators` tells the two apart.

    Parameters
    ----------
    column : str, default="categories"
        Categories as text, separated by commas.
    groups : mapping of str to sequence of str, optional
        Words and phrases by group; by default `CATEGORY_GROUPS`, made for Yelp's names:
        restaurant, bar, health, shopping, beauty and automotive.
    default : str, default="other"
        Group of what fits no other.
    output : str, default="category_group"
        Name of the added column with the group, of dtype ``str``.
    count_output : str, default="n_categories"
        Name of the added float column with the number of non-empty parts between commas. Yelp
        has a few names with a comma inside ("Beer, Wine & Spirits"), which count as two or more.

    Examples
    --------
    >>> import pandas as pd
    >>> from batch_nlp.transformers import CategoryGroups
    >>> rows = pd.DataFrame({"categories": ["Barbers, Hair Salons", "Nightlife, Bars", None]})
    >>> CategoryGroups().transform(rows)[["category_group", "n_categories"]]
      category_group  n_categories
    0         beauty           2.0
    1            bar           2.0
    2          other           0.0
    """

    def __init__(
        self,
        *,
        column: str = "categories",
        groups: Mapping[str, Sequence[str]] | None = None,
        default: str = "other",
        output: str = "category_group",
        count_output: str = "n_categories",
    ) -> None:
        self.column = column
        self.groups = groups
        self.default = default
        self.output = output
        self.count_output = count_output

    def _columns_needed(self) -> Sequence[str]:
        return [self.column]

    def _columns_added(self) -> Sequence[str]:
        return [self.output, self.count_output]

    def _check_parameters(self) -> None:
        for group, words in (self.groups or {}).items():
            if isinstance(words, str) or not words or not all(words):
                raise ValueError(
                    f"CategoryGroups: group '{group}' must be a list of words; got {words!r}."
                )

    def _derive(self, X: pd.DataFrame) -> Mapping[str, Any]:
        patterns = {
            group: re.compile(
                rf"(?<!\w)(?:{'|'.join(re.escape(word) for word in words)})s?(?!\w)", re.IGNORECASE
            )
            for group, words in (CATEGORY_GROUPS if self.groups is None else self.groups).items()
        }
        categories = X[self.column].astype(object)
        # The same business comes back in many rows, so each distinct text is read once.
        codes, distinct = pd.factorize(categories)
        found = [
            next((group for group, words in patterns.items() if words.search(text)), self.default)
            for text in distinct
        ]
        counts = [sum(1 for name in text.split(",") if name.strip()) for text in distinct]
        # Code -1, a missing value, takes the last element.
        return {
            self.output: pd.array(np.array([*found, self.default], dtype=object), dtype="str")[
                codes
            ],
            self.count_output: np.array([*counts, 0], dtype=np.float64)[codes],
        }
