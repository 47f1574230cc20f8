"""The class of a message."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from batch_nlp.errors import InputError
from batch_nlp.training.labels import StarRule


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
