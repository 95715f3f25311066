"""Two sub-scores per video: of its frames in one picture, and of single frames (PreResQ-R1)."""

from __future__ import annotations

from qhk.tasks.aspects import AspectTask, aspect_rules


class Video(AspectTask):
    """The sub-scores of a video."""

    form = "video"
    num_aspects = 2
    rules = aspect_rules(2)


TASK = Video
