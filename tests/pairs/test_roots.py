"""Manifests of others name pictures: in their own folder and in declared roots, nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from qhk.data.twin import attach_twins
from qhk.errors import UserError
from qhk.pairs.build import build_set
from qhk.pairs.endpoint import EndpointJudge
from qhk.pairs.judge import filter_pairs
from qhk.pairs.manifest import PairManifest, open_manifest, open_pairs
from qhk.pairs.records import pair_row
from qhk.pairs.review.app import build_app
from qhk.pairs.review.desk import Desk
from qhk.pairs.review.queue import Queue
from qhk.pairs.review.reviews import Reviews
from qhk.settings.parse import parse_settings
from tests.pairs.builders import degraded, source
from tests.pairs.conftest import example, scene
from tests.pairs.server import Response, serving
from tests.pairs.test_endpoint import options

OUTSIDE = "names a picture outside the manifest's folder"


@pytest.fixture(params=["absolute", "up", "link"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A manifest whose original lies in another folder, by each way there is."""
    private, shared = tmp_path / "private", tmp_path / "shared"
    (shared / "copies").mkdir(parents=True)
    private.mkdir()
    scene().save(private / "p.png")
    scene().save(shared / "copies" / "a.png")
    (shared / "link").symlink_to(private)
    written = {"absolute": str(private / "p.png"), "up": "../private/p.png", "link": "link/p.png"}
    path = shared / "pairs.jsonl"
    manifest = open_pairs(path, create=True)
    own = source("p.png", path=written[request.param], width=60, height=48)
    manifest.append([pair_row("group_1", own, degraded("blur"))])
    return path


def test_no_step_follows(path: Path, tmp_path: Path) -> None:
    manifest = open_pairs(path, roots=())
    (pair,) = manifest
    for use in (
        lambda: manifest.source_path(pair),
        lambda: build_set(manifest, tmp_path / "set", human_review="skipped", unjudged="keep"),
    ):
        with pytest.raises(
            UserError, match=rf"{OUTSIDE}.*; if it may be read, set pairs.roots=\[.*/private\]"
        ):
            use()
    with serving(lambda number, request: Response(text="yes")) as server:
        judge = EndpointJudge(manifest, options(server.url))
        done = filter_pairs(manifest, judge, limit=None, price=(0, 0), progress=lambda *_: None)
        assert server.requests == [] and [OUTSIDE in reason for reason in done.failures] == [True]
    for blind in (True, False):
        desk = Desk(
            reviews=Reviews(manifest),
            queue=Queue(manifest, order="manifest", scope="all", types=[]),
            blind=blind,
            prefetch=1,
        )
        client = TestClient(build_app(desk), base_url="http://127.0.0.1:1")
        reply = client.get("/api/picture", params={"pair": "group_1", "version": 1, "side": "original"})
        assert reply.status_code == 422 and ("private" in reply.json()["error"]) is not blind
    assert open_pairs(path, roots=[tmp_path / "private"]).source_path(pair).is_file()


def test_roots_are_those_of_the_settings(path: Path, tmp_path: Path, compose_plain: Any) -> None:
    def opened(*words: str) -> PairManifest:
        return open_manifest(parse_settings(compose_plain(f"pairs.manifest={path}", *words)))

    (pair,) = opened()
    with pytest.raises(UserError, match=OUTSIDE):
        opened().source_path(pair)
    assert opened(f"pairs.roots=[{tmp_path}/private]").source_path(pair).is_file()
    private = f"++dataset.koniq.root={tmp_path}/private"
    assert opened("experiment=q_hawkeye", private).source_path(pair).is_file()


@pytest.mark.parametrize("name", ["..", "a/b", "", "/tmp/x", "../../x"])
@pytest.mark.parametrize("what", ["group", "dataset", "type"])
def test_names_that_lead_out_of_the_folder_of_copies_are_refused(
    tmp_path: Path, name: str, what: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    open_pairs(path, create=True)
    own = source(dataset=name) if what == "dataset" else source()
    line = pair_row(name if what == "group" else "group_1", own, degraded(name if what == "type" else "blur"))
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(UserError, match="line 2 is not a record of pairs .* is no name of a file"):
        open_pairs(path)


def test_a_list_of_twins_is_confined_as_well(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    for place in (tmp_path / "p.png", shared / "a.png"):
        scene().save(place)
    twins = shared / "twins.jsonl"
    examples = [example(shared / "a.png", id_="a.png")]
    for written in ("../p.png", str(tmp_path / "p.png")):
        twins.write_text(json.dumps({"id": "a.png", "twin": written}) + "\n")
        with pytest.raises(UserError, match=rf"outside its folder.*set pairs.roots=\[{tmp_path}\]"):
            attach_twins(examples, twins, missing="refuse", roots=())
        assert attach_twins(examples, twins, missing="refuse", roots=[tmp_path])[0].twin is not None
