"""The modules that runs differ in, and what each adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qhk.report.runs import RunRecord, changed_keys
from qhk.report.scoring import Scored, aligned, of_policies
from qhk.report.views import View
from qhk.statistics.comparison import BenchmarkScores, Estimate, holm
from qhk.statistics.effects import Effects, Run, effect_sentence, module_effects

OFF = "none"
"""The level of a module that is left out: ``none``, 0, false, or a key that the config does not have."""


def find_modules(records: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Return what the configs of runs differ in: the name of a module -> its level in every run.

    Keys that split the runs alike cannot be told apart: they are one module, named by its nodes, such as
    ``perception`` or ``perception + uncertainty``. A level is the value as text, of a module of several keys
    that of its first; ``none`` stands for what is switched off: none, 0, false, or no such key. What has
    another level in every seed, and one in all runs of a seed, is part of the seed, as a start of its own is.
    """
    seeds = [record.seed for record in records]
    levels = {
        key: [_level(value) for value in values]
        for key, values in changed_keys([record.config for record in records]).items()
        if not key.startswith("dataset.")
    }
    groups: dict[tuple[int, ...], list[str]] = {}
    for key, values in levels.items():
        first_seen = {value: place for place, value in reversed(list(enumerate(values)))}
        parts = tuple(first_seen[value] for value in values)
        if len(set(parts)) > 1 and not _is_the_seed(parts, seeds):
            groups.setdefault(parts, []).append(key)
    found = {}
    for keys in groups.values():
        named = next((key for key in keys if key.endswith((".form", ".name", ".learner"))), keys[0])
        nodes = {key.partition(".")[0] for key in keys}
        name = " + ".join(sorted(nodes)) if len(keys) > 1 else named
        found[name if name not in found else named] = levels[named]
    return found


def _is_the_seed(parts: Sequence[int], seeds: Sequence[int]) -> bool:
    """Return whether runs are alike in a key exactly where they share a seed, and some do."""
    pairs = set(zip(parts, seeds, strict=True))
    return len(pairs) == len(set(parts)) == len(set(seeds)) < len(seeds)


def _level(value: Any) -> str:
    return OFF if value in (None, 0, False, "", "none", "[]", "{}") else str(value)


def compare_modules(
    view: View,
    scored: Mapping[str, Scored],
    *,
    interactions: bool = True,
    confidence: float = 0.95,
) -> tuple[Effects, list[str]] | None:
    """Return the effects of the modules that the runs differ in, and each as a sentence.

    Over the benchmarks that all policies have, and the runs that have all of these. None where no two runs
    differ, or none can be scored. Other scorers have no modules.
    """
    scored = of_policies(scored)
    methods = [{record.method for record in found.records} for found in scored.values()]
    names = [name for name in view.benchmarks if name in scored]
    names = [name for name in names if {r.method for r in scored[name].records} == set().union(*methods)]
    if not names:
        return None
    records, scores = aligned([scored[name] for name in names])
    levels = find_modules(records)
    if not levels:
        return None
    model = [
        Run(seed=record.seed, levels={name: values[place] for name, values in levels.items()})
        for place, record in enumerate(records)
    ]
    references = {name: OFF if OFF in values else values[0] for name, values in levels.items()}

    def effects(benchmarks: Sequence[BenchmarkScores]) -> Effects:
        return module_effects(
            model, benchmarks, references=references, interactions=interactions, confidence=confidence
        )

    whole = effects(scores)
    single = {name: effects([score]) for name, score in zip(names, scores, strict=True)}
    p = holm([effect.estimate.p for found in single.values() for effect in found.effects])
    by_effect: dict[str, dict[str, Estimate]] = {}
    places = iter(p)
    for name, found in single.items():
        for effect in found.effects:
            by_effect.setdefault(effect.name, {})[name] = replace(effect.estimate, p=next(places))
    sentences = [
        effect_sentence(effect, metric=view.metric.upper(), level=0.05, by_benchmark=by_effect[effect.name])
        for effect in whole.effects
    ]
    return whole, sentences
