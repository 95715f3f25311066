"""The model card of exported weights: what they were trained on, how, what they reach, under which terms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from qhk.evaluation.results import Measure, Moment, ResultRow
from qhk.plain import plain_text
from qhk.settings.base import Readout
from qhk.settings.data import FramingSettings
from qhk.settings.parse import plain_settings
from qhk.settings.root import Settings
from qhk.settings.views import stage_views, task_views
from qhk.tasks import find_form

LEARNT = (Moment.AFTER, Moment.CONTROL)
LEFT_OUT = ("paths", "pairs", "tracking", "version", "dry_run", "fresh", "checkpoint")
"""Nodes that say where a run was, or nothing of it."""


def model_card(
    settings: Settings, *, run_id: str, step: int | None, rows: Iterable[ResultRow], validation: str
) -> str:
    """Return the Markdown of the card. ``rows`` are a run's results; those measured at ``step`` are shown.

    ``validation`` says what the validation part gave the run's last and best checkpoint, or is empty.
    """
    shown = [row for row in rows if row.moment in LEARNT and row.step == step]
    parts = [
        _front_matter(settings),
        f"# {settings.name}, seed {settings.seed}, step {'unknown' if step is None else step}",
        f"Judges image quality; trained with qhk ({settings.training.learner}), run {run_id}.",
        "## Data",
        _data(settings),
        "## Protocol",
        _protocol(settings),
        "## Results",
        "\n\n".join(filter(None, [_results(settings, shown), validation])),
        "## Use",
        USE,
        "## Licence",
        _licence(settings),
        "## Config",
        f"```yaml\n{_config(settings)}```",
    ]
    return plain_text("\n\n".join(parts) + "\n")


USE = """\
```python
from transformers import AutoModelForImageTextToText, AutoTokenizer

model = AutoModelForImageTextToText.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)
```

The image processor beside it keeps the pixel limits of the training; what of a picture was shown is told
above. `qhk score IMAGE checkpoint=FOLDER` and `qhk evaluate checkpoint=FOLDER` ask as it was trained."""


def _base_model(settings: Settings) -> str | None:
    """The hub id that the training started from; None for random weights and for a folder on a disk."""
    path = settings.model.path
    return None if path is None or Path(path).is_dir() or path.startswith((".", "/", "~")) else path


def _front_matter(settings: Settings) -> str:
    fields = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": "apache-2.0" if settings.model.form == "tiny" else "other",
        "tags": ["image-quality-assessment", "qhk"],
    }
    base = _base_model(settings)
    if base is not None:
        fields["base_model"] = base
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _licence(settings: Settings) -> str:
    start = _base_model(settings) or "weights in a folder of the trainer's"
    own = f"The terms of the base model apply ({start})."
    if settings.model.form == "tiny":
        own = "The weights were made from random ones by qhk (Apache-2.0)."
    return f"{own} Those of the data sets above may restrict what is trained on them."


def _data(settings: Settings) -> str:
    lines = []
    for stage, task, own in _asked(settings):
        for name, weight in own.data.items():
            entry = own.dataset[name]
            split = f"{entry.protocol or ''} {own.loading.split}".strip()
            lines.append([stage, task, name, f"{weight:g}", split, _kind(entry.miniature)])
    return _table(["stage", "task", "set", "weight", "split", ""], lines)


def _asked(settings: Settings) -> list[tuple[str, str, Settings]]:
    """Every task of every stage with the names of both, each as the settings of a run of its own."""
    return [
        (stage.name, task, own)
        for stage in stage_views(settings)
        for task, own in task_views(stage.settings).items()
    ]


def _kind(is_miniature: bool) -> str:
    return "MINIATURE SYNTHETIC" if is_miniature else ""


def _protocol(settings: Settings) -> str:
    model, adapter, cold_start = settings.model, settings.adapter, settings.cold_start
    start = "random weights" if model.path is None else _base_model(settings) or "weights in a folder"
    taught = "none" if cold_start.form == "none" else f"{cold_start.steps} supervised steps on all weights"
    trained = "all weights, but for a frozen vision tower" if model.freeze_vision else "all weights"
    if adapter is not None:
        trained = f"{adapter.form} of rank {adapter.rank}, alpha {adapter.alpha:g}"
    headline = settings.evaluation.headline
    readout = settings.evaluation.readouts[headline]
    held_back = settings.loading.validation_fraction
    lines = [
        ["start", start],
        ["cold start", taught],
        ["trained", trained],
        ["pictures", f"{_shown(settings.framing)}, {model.min_pixels} to {model.max_pixels} pixels"],
        [headline, _answers(readout)],
        ["validation", f"{held_back:.0%} of the training images" if held_back else "none"],
    ]
    for stage, task, own in _asked(settings):
        name = f"{stage} {task}".strip()
        lines += [[f"{name}: system prompt", own.prompt.system]] if own.prompt.system else []
        lines.append([f"{name}: prompt", own.prompt.user])
    return _table(["", ""], lines)


def _answers(readout: Readout) -> str:
    many = f"{readout.num_samples} answers" if readout.num_samples > 1 else "one answer"
    number = "the expected score of " if readout.score == "expected" else ""
    return f"{number}{many} at temperature {readout.temperature:g}"


def _shown(framing: FramingSettings) -> str:
    """What of a picture whoever asks the model has to show it: the processor does not."""
    if framing.form == "whole":
        return "whole"
    square = f"{framing.side} x {framing.side} native pixels"
    if framing.form == "crop":
        return f"{square} from the middle"
    return f"{framing.pieces} x {framing.pieces} squares of {square}, each from the middle of its cell"


def _results(settings: Settings, rows: Sequence[ResultRow]) -> str:
    parts = []
    for form in dict.fromkeys(row.form for row in rows):
        metrics = find_form(form).metrics
        lines = [
            [
                row.benchmark,
                f"{row.protocol} {row.split}",
                row.readout,
                str(row.n),
                str(row.n - row.n_parsed),
                *(_interval(row.metrics[name]) for name in metrics),
                _kind(row.miniature),
            ]
            for row in rows
            if row.form == form
        ]
        heading = ["benchmark", "split", "read-out", "n", "unparsed", *metrics.values(), ""]
        parts.append(_table(heading, lines))
    if not parts:
        return "None were measured at this step."
    evaluation = settings.evaluation
    drawn = f"over {evaluation.bootstrap} draws of whole references"
    return "\n\n".join([*parts, f"In brackets {evaluation.confidence:.0%} intervals, {drawn}."])


def _interval(measure: Measure) -> str:
    if math.isnan(measure.value):
        return "-"
    if math.isnan(measure.low):
        return f"{measure.value:.3f}"
    return f"{measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}]"


def _table(heading: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heading, ["---"] * len(heading), *lines]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(text: str) -> str:
    """Text that stays in one cell and is read as itself."""
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|")):
        text = text.replace(mark, entity)
    return "<br>".join(text.splitlines())


def _config(settings: Settings) -> str:
    """The settings without places on a disk."""
    plain = {key: value for key, value in plain_settings(settings).items() if key not in LEFT_OUT}
    for entry in plain["dataset"].values():
        for key in ("root", "roots"):
            entry.pop(key, None)
    if _base_model(settings) is None:
        plain["model"]["path"] = None
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
