"""The class of a message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from batch_nlp.errors import InputError
from batch_nlp.training.labels import StarRule, grades


def classes(rule: StarRule, stars: list[float], label: list[float] | None = None) -> list[float]:
    label = label or [np.nan] * len(stars)
    found = rule.apply(pd.DataFrame({"stars": stars, "label": label}, dtype="float64"))
    assert found.dtype == "float64"
    return [-1 if np.isnan(each) else each for each in found]


def test_stars() -> None:
    stars = [1, 2, 2.5, 3, 3.9, 4, 4.5, 5, np.nan]
    assert classes(StarRule(), stars) == [0, 0, 1, 1, 1, 2, 2, 2, -1]


def test_other_thresholds() -> None:
    assert classes(StarRule(negative=1, positive=5), [1, 2, 3, 4, 5]) == [0, 1, 1, 1, 2]
    assert classes(StarRule(negative=3, positive=3.5), [1, 3, 4]) == [0, 0, 2]


def test_a_label_goes_before_stars() -> None:
    assert classes(StarRule(), [1, 5, np.nan, np.nan], [2, np.nan, 1, np.nan]) == [2, 2, 1, -1]


def test_the_index_is_kept() -> None:
    rows = pd.DataFrame({"stars": [1.0, 5.0], "label": [np.nan] * 2}, index=[8, 3])
    assert StarRule().apply(rows).to_dict() == {8: 0, 3: 2}


@pytest.mark.parametrize(("negative", "positive"), [(3, 3), (4, 2)])
def test_thresholds_that_leave_no_room(negative: float, positive: float) -> None:
    with pytest.raises(InputError, match=r"training\.label\.negative must be below"):
        StarRule(negative=negative, positive=positive)


def graded(
    stars: pd.Series, target: np.ndarray, fewest: int = 10, texts: pd.Series | None = None
) -> np.ndarray | None:
    texts = stars.index.to_series().astype("str") if texts is None else texts
    return grades(stars, target, texts, fewest=fewest)


def counted(*given: Any) -> list[int]:
    found = graded(*given)
    assert found is not None
    counts: list[int] = np.bincount(found).tolist()
    return counts


def test_grades_are_whole_stars_that_belong_to_one_class() -> None:
    stars = pd.Series([1.0] * 5 + [2.2] * 6 + [3.0] * 7 + [4.0] * 8 + [5.0] * 9)
    target = np.repeat([0, 0, 1, 2, 2], [5, 6, 7, 8, 9])
    assert counted(stars, target, 5) == [0, 5, 6, 7, 8, 9]
    # A star that is rare counts as the usual one of its class, and so does none at all.
    assert counted(stars, target, 6) == [0, 0, 11, 7, 8, 9]
    stars[:2], stars[20] = np.nan, 1.0
    assert counted(stars, target, 3) == [0, 3, 8, 7, 7, 10]


def test_a_star_of_one_text_is_rare_however_often_it_comes() -> None:
    stars = pd.Series([1.0] * 12 + [2.0] * 12 + [3.0] * 12 + [5.0] * 12)
    target = np.repeat([0, 0, 1, 2], 12)
    texts = pd.Series(["the same"] * 12 + [f"text {i}" for i in range(36)])
    assert counted(stars, target, 10, texts) == [0, 0, 24, 12, 0, 12]


def test_without_stars_of_every_class_there_are_no_grades() -> None:
    stars, target = pd.Series([1.0, 3.0, 5.0] * 10), np.array([0, 1, 2] * 10)
    assert graded(stars, target) is not None
    assert graded(stars.where(stars < 4), target) is None
    assert graded(stars, target, 11) is None
    # A rule that parts one star into two classes leaves one of them without.
    assert graded(pd.Series([2.9, 3.0, 5.0] * 10), target) is None
