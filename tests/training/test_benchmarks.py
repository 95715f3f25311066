"""Which sets count as seen: by name, by folder, and in the runs whose weights a run began with."""

from __future__ import annotations

from pathlib import Path

import yaml

from qhk.cli.job import prepare
from qhk.config.catalogue import Catalogue
from qhk.settings.parse import plain_settings
from qhk.settings.root import Settings
from qhk.training.benchmarks import sets_seen

JUDGED = "benchmark=[koniq,spaq,kadid,csiq,miniature_koniq]"
LARGE = ("model=qwen2_5_vl_7b", "model.dtype=float32")


def settings(catalogue: Catalogue, *words: str) -> Settings:
    words = (JUDGED, "dataset.csiq.root=/data/meta", *words)
    return prepare("train", words, catalogue).settings


def test_a_set_is_seen_by_its_name_in_any_stage_or_by_its_folder(catalogue: Catalogue) -> None:
    def seen(*words: str) -> set[str]:
        found = settings(catalogue, *words)
        return sets_seen(found, found.dataset)

    assert seen("data=koniq") == {"koniq"}
    assert seen("data=[koniq,spaq]") == {"koniq", "spaq"}
    assert seen("data=kadid", "dataset.kadid.root=/data/./meta") == {"kadid", "csiq"}
    # The miniature set's root is a name, and not the folder of that name.
    assert "miniature_koniq" not in seen("data=koniq", "dataset.koniq.root=koniq")


def test_a_run_saw_what_its_weights_saw(catalogue: Catalogue, tmp_path: Path) -> None:
    for name, words in (("first", ["data=koniq"]), ("second", ["data=spaq", f"model.path={tmp_path}/first"])):
        stored = settings(catalogue, *LARGE, *words)
        (tmp_path / name).mkdir()
        (tmp_path / name / "qhk.yaml").write_text(yaml.safe_dump(plain_settings(stored)))
    last = settings(catalogue, *LARGE, "data=kadid", f"model.path={tmp_path}/second")
    assert sets_seen(last, last.dataset) == {"koniq", "spaq", "kadid"}
    own = last.model_copy(update={"model": last.model.model_copy(update={"path": "org/published"})})
    assert sets_seen(own, own.dataset) == {"kadid"}
