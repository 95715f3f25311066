"""The face that Python programs and notebooks see: ``qhk.load`` and ``qhk.read_runs``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qhk.cli.checkpoints import stage_settings
from qhk.data.image import check_header
from qhk.errors import UserError
from qhk.evaluation.score import NamedImage, ScoredImage, check_one_picture, score_images
from qhk.policy.load import Policy
from qhk.policy.start import open_policy
from qhk.report.runs import Runs, read_runs
from qhk.settings.parse import read_settings
from qhk.settings.root import Settings
from qhk.training.checkpoint import checkpoint_config
from qhk.training.distributed import Processes

__all__ = ["NamedImage", "Runs", "ScoredImage", "Scorer", "load", "read_runs"]


class Scorer:
    """A checkpoint that answers about images, asked as it was trained."""

    def __init__(self, policy: Policy, settings: Settings) -> None:
        self.policy, self.settings = policy, settings

    def score(self, image: Path | str, *, num_samples: int = 8) -> ScoredImage | NamedImage:
        """Return the answer about one image: its score (or labels), the spread over samples, the reasoning.

        The same as ``qhk score IMAGE checkpoint=... num_samples=...``. Raises ``UserError`` for a file that
        is no readable picture.
        """
        return self.score_all([image], num_samples=num_samples)[0]

    def score_all(
        self, images: Sequence[Path | str], *, num_samples: int = 8
    ) -> list[ScoredImage | NamedImage]:
        """Return the answers about images, in order; faster than one at a time."""
        if num_samples < 1:
            raise UserError(f"num_samples={num_samples}: give 1 or more")
        paths = [Path(image) for image in images]
        for path in paths:
            check_header(path)
        parts = score_images(self.policy, self.settings, paths, num_samples=num_samples)
        return [answer for part in parts for answer in part]


def load(checkpoint: Path | str, *, stage: str | None = None, device: str | None = None) -> Scorer:
    """Return a checkpoint of ours, ready to score: ``qhk.load("outputs/.../checkpoints/last")``.

    ``stage`` names the stage of its run whose task is asked, by default the checkpoint's own. ``device`` is
    torch's, by default the accelerator where there is one. Raises ``UserError`` for any other folder, and for
    a task that asks about several pictures.
    """
    path = Path(checkpoint)
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; give one such as outputs/.../checkpoints/last")
    settings = stage_settings(read_settings(checkpoint_config(path)), path, stage=stage)
    check_one_picture(settings)
    policy = open_policy(str(path), settings.model, device=device or str(Processes("single").device))
    return Scorer(policy, settings)
