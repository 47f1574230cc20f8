"""Tables of categories."""

from __future__ import annotations

import pandas as pd
import pytest

from batch_nlp.transformers import CategoryGroups


def grouped(categories: str | None, **parameters: object) -> tuple[str, float]:
    rows = pd.DataFrame({"categories": pd.Series([categories], dtype="str")})
    out = CategoryGroups(**parameters).transform(rows)
    return out["category_group"].item(), out["n_categories"].item()


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ("Bars, Restaurants, Nightlife", ("restaurant", 3)),
        ("Sports Bars, Nightlife", ("bar", 2)),
        ("Barbers", ("beauty", 1)),
        ("Barbeque", ("restaurant", 1)),
        ("Barre Classes", ("other", 1)),
        ("Public Services & Government", ("other", 1)),
        ("DENTISTS, General Dentistry", ("health", 2)),
        ("Shopping, Beauty & Spas", ("shopping", 2)),
        ("Beer, Wine & Spirits, Food", ("shopping", 3)),
        ("Nail Salons", ("beauty", 1)),
        ("Auto Repair", ("automotive", 1)),
        ("Automation Services", ("other", 1)),
        ("Home Services, Plumbing,", ("other", 2)),
        (" , ", ("other", 0)),
        ("", ("other", 0)),
        (None, ("other", 0)),
    ],
)
def test_default_groups(categories: str | None, expected: tuple[str, float]) -> None:
    assert grouped(categories) == expected


def test_own_groups_in_their_order() -> None:
    groups = {"c++": ["c++"], "any": ["c", "deep dish"]}
    assert grouped("C++, C", groups=groups) == ("c++", 2)
    assert grouped("C, Deep Dish", groups=groups) == ("any", 2)
    assert grouped("Bars", groups=groups, default="none") == ("none", 1)


@pytest.mark.parametrize("words", ["bar", [], [""]])
def test_group_without_words_is_refused(words: object) -> None:
    with pytest.raises(ValueError, match="group 'bar' must be a list of words; got"):
        grouped("Bars", groups={"bar": words})
