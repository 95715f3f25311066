"""Five sub-scores per image: saturation, granularity, sharpness, foreground, background (PreResQ-R1)."""

from __future__ import annotations

from qhk.tasks.aspects import AspectTask, aspect_rules


class MultiAspect(AspectTask):
    """The sub-scores of an image."""

    form = "multi_aspect"
    num_aspects = 5
    rules = aspect_rules(5)


TASK = MultiAspect
