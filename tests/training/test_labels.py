"""The class of a message."""

from __future__ import annotations

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


def test_grades_are_whole_stars_that_belong_to_one_class() -> None:
    stars = pd.Series([1.0] * 5 + [2.2] * 6 + [3.0] * 7 + [4.0] * 8 + [5.0] * 9)
    target = np.repeat([0, 0, 1, 2, 2], [5, 6, 7, 8, 9])
    assert np.bincount(grades(stars, target, fewest=5)).tolist() == [0, 5, 6, 7, 8, 9]
    # A star that is rare counts as the usual one of its class, and so does none at all.
    assert np.bincount(grades(stars, target, fewest=6)).tolist() == [0, 0, 11, 7, 8, 9]
    stars[:2], stars[20] = np.nan, 1.0
    assert np.bincount(grades(stars, target, fewest=3)).tolist() == [0, 3, 8, 7, 7, 10]


def test_without_stars_of_every_class_there_are_no_grades() -> None:
    stars, target = pd.Series([1.0, 3.0, 5.0] * 10), np.array([0, 1, 2] * 10)
    assert grades(stars, target) is not None
    assert grades(stars.where(stars < 4), target) is None
    assert grades(stars, target, fewest=11) is None
    # A rule that parts one star into two classes leaves one of them without.
    assert grades(pd.Series([2.9, 3.0, 5.0] * 10), target) is None
