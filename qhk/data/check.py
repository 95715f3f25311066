"""Holds a set on disk against what is known of it: one finding per question, each with its fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qhk.data.check_files import check_files
from qhk.data.finding import Finding, judge
from qhk.data.labels import Labels, load_labels
from qhk.data.scale import Scale
from qhk.data.spec import Progress, adapter_options, check_spec, make_root, missing_below
from qhk.settings.data import DatasetSettings, ExpectedSettings

Images = Literal["decode", "header", "skip"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """The findings of one set; ``fingerprint`` is what a run on it records, None where none could read it."""

    name: str
    findings: Sequence[Finding]
    fingerprint: str | None

    @property
    def failed(self) -> bool:
        """Return whether the set cannot be used as it is, or is not the set that it is taken for."""
        return any(finding.verdict == "error" for finding in self.findings)


def check_set(
    name: str,
    spec: DatasetSettings,
    *,
    cache: Path,
    images: Images,
    near_duplicates: bool,
    workers: int,
    progress: Progress,
) -> Report:
    """Return what was found of the set ``name``, compared with the expected counts of a published one.

    ``images`` skip leaves the images out, header reads their bytes and headers, decode every pixel;
    ``near_duplicates`` also compares how pictures look. Raises ``UserError`` only for settings that are
    wrong in themselves (an unknown adapter or option, a null root).
    """
    adapter = check_spec(name, spec)
    expected = None if spec.miniature or spec.expected is None else spec.expected.under(spec.options)
    findings: list[Finding] = []
    try:
        root = make_root(name, spec, cache=cache, progress=progress)
        missing = missing_below(name, spec, adapter, root)
        findings += [
            Finding("layout", line, "", "error", f"expected layout: {adapter.layout}")
            for line, is_images in missing
            if images != "skip" or not is_images
        ]
        if any(not is_images for _, is_images in missing):
            return Report(name=name, findings=findings, fingerprint=None)
        labels = load_labels(name, spec, cache=cache, progress=progress, need_images=False)
    except ValueError as error:
        hint = expected.hint if expected is not None else ""
        findings.append(Finding("labels", "cannot be used", "", "error", f"{error}{hint and f'; {hint}'}"))
        return Report(name=name, findings=findings, fingerprint=None)
    findings += check_labels(labels, spec, expected)
    if images == "skip" or findings[0].subject == "layout":
        return Report(name=name, findings=findings, fingerprint=None)
    about_files, fingerprint = check_files(
        labels,
        adapter_options(spec),
        expected,
        cache=cache,
        depth=images,
        near_duplicates=near_duplicates,
        workers=workers,
        progress=progress,
    )
    return Report(name=name, findings=[*findings, *about_files], fingerprint=fingerprint)


def check_labels(labels: Labels, spec: DatasetSettings, expected: ExpectedSettings | None) -> list[Finding]:
    """Check rows, native range and polarity, the map to [1, 5], references and parts."""
    found = [_rows(len(labels.rows), expected)]
    if labels.left_out:
        fix = f"first {labels.left_out[0]}"
        found.append(Finding("rows left out", str(len(labels.left_out)), "", "ok", fix, labels.left_out))
    if labels.scale is not None:
        found += _scores(labels, labels.scale, spec, expected)
    references = {row.reference for row in labels.rows if row.reference is not None}
    wanted = expected.references if expected is not None else None
    if references or wanted:
        fix = "the label file is not complete: download it again"
        found.append(judge("references", len(references), wanted, fix))
    return [*found, _parts(labels, spec, expected)]


def _scores(
    labels: Labels, scale: Scale, spec: DatasetSettings, expected: ExpectedSettings | None
) -> list[Finding]:
    scores = [row.score for row in labels.rows if row.score is not None]
    mos = [scale.mos(score) for score in scores]
    ends = f"{spec.normalisation}: {scale.low:.10g} and {scale.high:.10g}"
    ends += "" if scale.higher_is_better else ", mirrored"
    better = "higher" if scale.higher_is_better else "lower"
    return [
        _range(min(scores), max(scores), better, expected),
        Finding("score on 1 to 5", f"{min(mos):.6g} to {max(mos):.6g}", ends, "ok", ""),
    ]


def _rows(count: int, expected: ExpectedSettings | None) -> Finding:
    if expected is None:
        return judge("labelled images", count, None, "")
    other = expected.traps.get(str(count))
    fix = f"this is {other}" if other else "the label file is cut or of another version: download it again"
    return judge("labelled images", count, expected.rows, fix)


def _range(low: float, high: float, better: str, expected: ExpectedSettings | None) -> Finding:
    text = f"{low:.10g} to {high:.10g}, {better} is better"
    if expected is None or expected.low is None or expected.high is None:
        return Finding("native scores", text, "", "ok", "")
    fits = abs(low - expected.low) <= expected.tolerance and abs(high - expected.high) <= expected.tolerance
    wanted = f"{expected.low:.10g} to {expected.high:.10g}"
    fix = expected.hint or "the scores are of another version or were rescaled: use the official label file"
    return Finding("native scores", text, wanted, "ok" if fits else "error", "" if fits else fix)


def _parts(labels: Labels, spec: DatasetSettings, expected: ExpectedSettings | None) -> Finding:
    counts = Counter(labels.splits)
    used = {split: counts[split] for split in ("train", "validation", "test") if counts[split]}
    text = _counts(used) + (f" ({counts[None]} in no part)" if counts[None] else "")
    subject = f"parts of {spec.protocol}"
    if expected is None:
        return Finding(subject, text, "", "ok", "")
    wanted = expected.of_protocol(spec.protocol)
    if wanted is None:
        return Finding(subject, text, "", "ok", "")
    fix = f"the protocol's lists and the label file do not fit: see 'labelled images' ({labels.root})"
    return Finding(
        subject, text, _counts(wanted), "ok" if used == wanted else "error", "" if used == wanted else fix
    )


def _counts(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in parts.items()) or "none"
