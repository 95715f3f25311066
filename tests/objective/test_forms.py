from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qhk.objective.forms import PERCEPTION_FORMS, UNCERTAINTY_FORMS

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize(
    ("group", "forms"), [("uncertainty", UNCERTAINTY_FORMS), ("perception", PERCEPTION_FORMS)]
)
def test_every_form_has_an_option_of_its_name(group: str, forms: dict[str, object]) -> None:
    assert {path.stem for path in (CONF / group).glob("*.yaml")} == {*forms}


@pytest.mark.parametrize("name", UNCERTAINTY_FORMS)
def test_a_weight_begins_at_one_falls_and_stays_positive(name: str) -> None:
    form, u = UNCERTAINTY_FORMS[name], torch.linspace(0, 1, 11, dtype=torch.float64)
    assert form.weight(u, 0.0).tolist() == [1.0] * 11
    for alpha in (0.3, min(form.largest_alpha, 50.0)):
        weights = form.weight(u, alpha)
        assert weights.shape == u.shape and weights[0] == 1.0
        assert bool((weights >= 0).all()) and bool((weights.diff() <= 0).all())


def test_settings_know_the_forms_without_torch() -> None:
    code = "import sys, qhk.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
