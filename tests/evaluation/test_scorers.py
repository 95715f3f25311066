"""Scorers without a policy: what their predictions mean, and tables of anyone's scores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from qhk.errors import UserError
from qhk.evaluation.measure import measure_predictions
from qhk.evaluation.results import VALUE, Moment, ResultRow
from qhk.evaluation.scorers import BASELINES, BaselineScorer, TableScorer, build_scorer, scorer_identity
from qhk.settings.measuring import ScorerSettings
from qhk.types import Example
from tests.evaluation.builders import example
from tests.tasks.builders import task_of


def images(folder: Path, names: Sequence[str], *, size: tuple[int, int] = (30, 40)) -> list[Example]:
    """Return examples whose pictures are noise, stronger from one to the next."""
    found = []
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        pixels = np.clip(128 + rng.normal(0, 4 + 9 * number, (*size, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        found.append(replace(example(name, mos=5.0 - number / 2), image=path))
    return found


def table(path: Path, **settings: object) -> TableScorer:
    return TableScorer(ScorerSettings(form="table", path=str(path), **settings))  # type: ignore[arg-type]


def measured(examples: Sequence[Example], scorer: object) -> ResultRow:
    return measure_predictions(
        scorer.predict(examples),  # type: ignore[attr-defined]
        task=type(task_of("score", "strict")),
        benchmark="koniq",
        split="test",
        protocol="all",
        miniature=False,
        step=0,
        moment=Moment.AFTER,
        readout=VALUE,
        num_resamples=0,
        confidence=0.95,
        seed=0,
        on_scale=scorer.on_scale,  # type: ignore[attr-defined]
    )


@pytest.mark.parametrize("form", ["brisque", "piqe"])
def test_a_measure_is_turned_round_and_keeps_its_own_value(form: str, tmp_path: Path) -> None:
    examples = images(tmp_path, [f"{n}.png" for n in range(7)])
    scorer = build_scorer(ScorerSettings(form=form), workers=2)  # type: ignore[arg-type]
    assert scorer.prepare("koniq", examples) == ""
    predictions = scorer.predict(examples)
    raw = [BASELINES[form].measure(np.asarray(Image.open(e.image).convert("L"), float)) for e in examples]
    assert [item.raw for item in predictions] == raw
    assert [item.score for item in predictions] == pytest.approx([5 - value / 25 for value in raw])
    row = measured(examples, scorer)
    mos = [item.mos for item in predictions]
    assert row.metrics["srcc"].value == pytest.approx(-stats.spearmanr(raw, mos)[0])
    assert row.metrics["plcc"].value == pytest.approx(-stats.pearsonr(raw, mos)[0])  # not cut off at 1 or 5
    assert not {"rmse", "mae"} & row.metrics.keys()


def test_a_value_beyond_the_worst_is_not_cut_off(tmp_path: Path) -> None:
    scorer = BaselineScorer("piqe", workers=0)
    scorer.baseline = replace(scorer.baseline, measure=lambda grey: 140.0)
    (found,) = scorer.predict(images(tmp_path, ["a.png"]))
    assert (found.raw, found.out_of_range) == (140.0, 0)
    assert found.score == found.clipped == pytest.approx(-0.6)


def test_a_picture_that_is_too_small_is_named_with_the_measures_that_take_it(tmp_path: Path) -> None:
    examples = images(tmp_path, ["a.png"])
    with pytest.raises(UserError, match=r"benchmark\.koniq: .*a\.png is 40x30, and niqe needs 193 pixels"):
        build_scorer(ScorerSettings(form="niqe"), workers=0).prepare("koniq", examples)


def test_a_table_is_matched_as_label_files_are(tmp_path: Path) -> None:
    examples = images(tmp_path / "set", ["one/A.PNG", "two/a.png", "two/b c.jpg", "two/d.png"])
    path = tmp_path / "their.csv"
    path.write_text(
        "\ufeffpicture,score,who\r\n"
        'somewhere\\two\\A.png,20,x\r\nset/one/a.png,40,x\r\n"B C",10,x\r\nd.jpeg,30,x\r\nother.png,99,x\r\n'
    )
    scorer = table(path, name_column="picture", higher_is_better=False)
    assert scorer.prepare("koniq", examples) == f"1 rows of {path} are of other images than koniq's"
    predictions = scorer.predict(examples)
    assert [item.raw for item in predictions] == [40, 20, 10, 30]
    # 10 to 99, of which less is better, are spread over 5 to 1.
    mapped = [5 - 4 * (raw - 10) / 89 for raw in (40, 20, 10, 30)]
    assert [item.clipped for item in predictions] == pytest.approx(mapped)
    assert not {"rmse", "mae"} & measured(examples, scorer).metrics.keys()


def test_a_table_on_the_scale_of_opinions_has_errors_and_is_clipped(tmp_path: Path) -> None:
    examples = images(tmp_path, ["a.png", "b.png", "c.png"])
    path = tmp_path / "their.csv"
    path.write_text("name,score\na.png,100\nb.png,50\nc.png,110\n")
    scorer = table(path, bounds=(0.0, 100.0))
    scorer.prepare("koniq", examples)
    predictions = scorer.predict(examples)
    assert [(item.score, item.clipped, item.out_of_range) for item in predictions] == [
        (5.0, 5.0, 0), (3.0, 3.0, 0), (5.4, 5.0, 1),
    ]  # fmt: skip
    assert measured(examples, scorer).metrics["mae"].value == pytest.approx((0 + 1.5 + 1.0) / 3)


def test_images_without_a_row_are_refused_or_count_as_unanswered(tmp_path: Path) -> None:
    examples = images(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    path = tmp_path / "their.csv"
    path.write_text("name,score\na.png,3\nb.png,2\nd.png,1\n")
    with pytest.raises(UserError, match=r"has no row for 'c\.png' of koniq \(1 of 4 images\): add the rows"):
        table(path).prepare("koniq", examples)
    scorer = table(path, missing="leave_out")
    assert scorer.prepare("koniq", examples) == "1 of 4 images of koniq have no row"
    row = measured(examples, scorer)
    assert (row.n, row.n_parsed, row.samples_failed) == (4, 3, 1)
    others = images(tmp_path / "other", ["x.png"])
    with pytest.raises(UserError, match=r"1 of 1 images"):
        scorer.prepare("spaq", others)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,score\na.png,3\nA.PNG,2\nb.png,1\n", r"line 3: 'a\.png' has a score already, in .* line 2"),
        ("name,score\na.png,3,5\nb.png,1\n", "line 2: 3 cells, the header has 2"),
        ("name,score\na.png,\nb.png,1\n", "line 2: score is '', not a number"),
        ("name,score\na.png,nan\nb.png,1\n", "line 2: score is 'nan', not a number"),
        ("name,score\n,3\n", "line 2: name is empty"),
        ("name,score\n", "has no rows"),
        ("image,score\na.png,3\n", "no column 'name'; columns present: image, score"),
    ],
)
def test_a_table_that_is_wrong_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "their.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        table(path).prepare("koniq", images(tmp_path, ["a.png", "b.png"]))
    assert "\n" not in str(caught.value)


def test_a_name_that_fits_two_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "their.csv"
    path.write_text("name,score\na,3\n")
    with pytest.raises(UserError, match=r"image 'a' fits 2 files .*: write its folder"):
        table(path).prepare("koniq", images(tmp_path, ["one/a.png", "two/a.png"]))


def test_other_scores_are_another_evaluation(tmp_path: Path) -> None:
    path = tmp_path / "their.csv"
    path.write_text("name,score\na,3\n")
    settings = ScorerSettings(form="table", path=str(path))
    before = scorer_identity(settings)
    assert before == scorer_identity(settings.model_copy(update={"label": "theirs"}))
    path.write_text("name,score\na,4\n")
    assert before != scorer_identity(settings)


def test_scorers_load_no_model_library() -> None:
    program = "import sys, qhk.evaluation.scorers, qhk.training.benchmarks, qhk.cli.commands.evaluate\n"
    program += "print({'torch', 'transformers', 'accelerate', 'datasets', 'pandas'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
