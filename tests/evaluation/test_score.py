"""Which files ``qhk score`` takes for images."""

from __future__ import annotations

import pytest

from qhk.errors import UserError
from qhk.evaluation.score import find_images


@pytest.mark.parametrize(
    "pattern", ["a" * 300 + ".png", "~nobody_of_this_name/a.png", "nowhere.png", "*.nothing"]
)
def test_a_name_that_leads_nowhere_is_one_line(pattern: str) -> None:
    with pytest.raises(UserError, match="cannot be looked up|no such image") as caught:
        find_images([pattern])
    assert "\n" not in str(caught.value)
