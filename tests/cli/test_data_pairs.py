"""The steps of degraded pairs through the command line, on the miniature sets."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from qhk.cli.main import main
from qhk.pairs.manifest import open_pairs
from tests.conftest import repository_catalogue
from tests.data.conftest import REAL_DATA
from tests.pairs.server import Response, serving

Out = pytest.CaptureFixture[str]
PHOTOGRAPHS = REAL_DATA / "biq2021"


@pytest.fixture
def words(tmp_path: Path, miniature_cache: Path) -> list[str]:
    """Overrides that keep everything below a folder of the test, with eight images per set."""
    paths = [f"paths.outputs={tmp_path}/out", f"paths.cache={miniature_cache}"]
    return [*paths, "loading.limit=8", "pairs.workers=0"]


def manifest_of(tmp_path: Path) -> Path:
    return tmp_path / "out" / "pairs" / "pairs.jsonl"


def test_step_by_step(tmp_path: Path, words: list[str], capsys: Out) -> None:
    assert main(["data", "degrade", *words]) == 0
    out = capsys.readouterr().out
    manifest = open_pairs(manifest_of(tmp_path))
    count = len(manifest)
    assert count == 24 and f"degrade: {count} pairs made, 0 were there, 0 failed" in out
    assert {pair.source.split for pair in manifest} == {"train"}

    middle = sorted(pair.copy.ssim or 0.0 for pair in manifest)[count // 2]
    assert main(["data", "filter", *words, f"pairs.filter.threshold={middle}"]) == 0
    out = capsys.readouterr()
    assert "12 look the same, 12 differ, 0 failed" in out.out and "(no model)" in out.err

    assert main(["data", "strengthen", *words]) == 0
    out = capsys.readouterr().out
    assert "0 pairs degraded again" in out and "12 wait for review" in out
    assert "qhk data review" in out

    assert main(["data", "build", *words]) == 0
    out = capsys.readouterr().out
    assert "build: 12 pairs kept (0 strengthened), 12 dropped" in out
    assert "not reviewed by a person" in out and "pairs.human_review=skipped" not in out

    assert main(["data", "build", *words, f"pairs.build.unpack={tmp_path}/images"]) == 0
    assert "unpacked: 12 originals" in capsys.readouterr().out
    assert len(list((tmp_path / "images" / "degraded").iterdir())) == 12


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the photographs are not beside this checkout")
def test_the_chain_with_its_defaults_on_photographs(tmp_path: Path, capsys: Out) -> None:
    """Some copies look the same: there is something to review and to strengthen. Then a second build."""
    root = tmp_path / "photographs"
    (root / "images").mkdir(parents=True)
    with (PHOTOGRAPHS / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"][::55]
    for row in rows:
        # A part of it at its own size: strengths are in pixels.
        with Image.open(PHOTOGRAPHS / "images" / row["image"]) as photograph:
            photograph.crop((0, 0, 160, 160)).save(root / "images" / row["image"], quality=95)
    lines = [f"{row['image']},{row['mos']},train" for row in rows]
    (root / "labels.csv").write_text("\n".join(["image,mos,split", *lines]))
    folder = [f"dataset.folder.root={root}", "dataset.folder.options.score_column=mos"]
    folder += ["dataset.folder.bounds=[0,1]", "dataset.folder.higher_is_better=true", "pairs.workers=0"]
    paths = [f"paths.outputs={tmp_path}/out", f"paths.cache={tmp_path}/cache"]

    def step(name: str, *words: str) -> str:
        assert main(["data", name, *paths, *words]) == 0
        return capsys.readouterr().out

    out = step("degrade", "data=folder", *folder)
    assert "8 pairs made" in out
    found = re.search(r"(\d+) look the same, (\d+) differ, 0 failed", step("filter"))
    assert found is not None
    same, differ = map(int, found.groups())
    assert same + differ == 8 and min(same, differ) >= 2
    assert f"0 pairs degraded again, 0 failed, {same} wait for review" in step("strengthen")
    # The settings of this step say nothing of the set, so that its root is none of theirs.
    assert main(["data", "build", *paths]) == 2
    assert "set pairs.roots=" in capsys.readouterr().err
    permitted = f'pairs.roots=["{root}"]'
    assert f"dataset.*.root are as here, or with '{permitted}'" in out
    assert f"build: {differ} pairs kept" in step("build", permitted)
    other = ["build", permitted, "pairs.human_review=skipped"]
    assert main(["data", *other, *paths]) == 2
    assert "replace it with fresh=true" in capsys.readouterr().err
    assert f"build: {differ} pairs kept (0 strengthened), {same} dropped; built and read back" in step(
        *other, "fresh=true"
    )


def test_the_chain_says_that_no_person_looked(tmp_path: Path, words: list[str], capsys: Out) -> None:
    chain = [*words, "experiment=q_hawkeye", "scale=miniature", "pairs.chain=true"]
    assert main(["data", "build", *chain]) == 2
    assert "pairs.human_review: must be skipped for chain true" in capsys.readouterr().err
    assert not manifest_of(tmp_path).exists()
    chain += ["pairs.human_review=skipped", "pairs.filter.threshold=0.6"]
    assert main(["data", "build", *chain]) == 0
    out = capsys.readouterr().out
    assert "no person reviews" in out and "built and read back, bytes equal" in out
    before = manifest_of(tmp_path).read_bytes()
    assert main(["data", "build", *chain]) == 0
    assert "was built before" in capsys.readouterr().out
    assert manifest_of(tmp_path).read_bytes() == before, "a second chain has nothing to do"


def test_a_server_judges_with_a_key_from_a_file(tmp_path: Path, words: list[str], capsys: Out) -> None:
    assert main(["data", "degrade", *words]) == 0
    key = tmp_path / "key"
    key.write_text("sk-secret\n")
    reply = ["yes", "no", "hm"]
    with serving(lambda number, request: Response(text=reply[number % 3])) as server:
        endpoint = "pairs.filter.endpoint"
        asked = [*words, "pairs.filter.judge=endpoint", f"{endpoint}.url={server.url}", f"{endpoint}.model=m"]
        asked += [f"{endpoint}.api_key_file={key}", f"{endpoint}.price_input=2.0"]
        assert main(["data", "filter", *asked]) == 1, "failed pairs show in the exit code"
        out = capsys.readouterr().out
        assert "8 look the same, 8 differ, 8 failed" in out and "failed 8 times: neither yes nor no" in out
        assert "tokens: 2400 in, 48 out; cost 0.0048" in out
        assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in manifest_of(tmp_path).read_text()


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        ("filter", [], "no such manifest; make it with qhk data degrade"),
        ("build", [], "no such manifest"),
        ("degrade", ["pairs.degrade.kinds=[fog]"], "'fog' is no degradation"),
        ("degrade", ["pairs.degrade.level=stage_9"], "pairs.degrade.level: must be one of"),
        ("degrade", ["pairs.degrade.kinds=[haze]"], "stage_1 has no strength for haze"),
        ("degrade", ["pairs.degrade.target=1.5"], "pairs.degrade.target: "),
        ("filter", ["pairs.filter.judge=endpoint"], "pairs.filter.endpoint.url: must be given"),
        ("build", ["pairs.build.unpack=x"], "no built set"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], capsys: Out, command: str, more: list[str], message: str
) -> None:
    assert main(["data", command, *words, *more]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1, err


@pytest.mark.parametrize("wrong", ["url=ftp://x", "api_key_file=/nowhere"])
def test_a_wrong_server_is_refused_before_anything_is_sent(
    tmp_path: Path, words: list[str], capsys: Out, wrong: str
) -> None:
    assert main(["data", "degrade", *words]) == 0
    endpoint = "pairs.filter.endpoint"
    asked = ["pairs.filter.judge=endpoint", f"{endpoint}.url=http://127.0.0.1:9", f"{endpoint}.model=m"]
    assert main(["data", "filter", *words, *asked, f"{endpoint}.{wrong}"]) == 2
    assert wrong.partition("=")[0] in capsys.readouterr().err


def test_pairs_are_no_part_of_a_run(compose_plain: object) -> None:
    from qhk.settings.identity import run_id
    from qhk.settings.parse import parse_settings

    plain = compose_plain()  # type: ignore[operator]
    other = compose_plain("pairs=further", "pairs.human_review=skipped")  # type: ignore[operator]
    assert run_id(parse_settings(plain)) == run_id(parse_settings(other))


def test_training_reads_a_built_set(tmp_path: Path, words: list[str], capsys: Out) -> None:
    from qhk.cli.job import prepare
    from qhk.training.data import load_run_data
    from qhk.training.display import SilentDisplay

    assert main(["data", "build", *words, "pairs.chain=true", "pairs.human_review=skipped"]) == 0
    twins = tmp_path / "out" / "pairs" / "set" / "twins.jsonl"
    overrides = [*words, "twin=manifest", f"twin.manifest={twins}", "benchmark=[]"]
    job = prepare("train", [*overrides, "twin.missing=leave_out"], repository_catalogue())
    data = load_run_data(job.settings, SilentDisplay())
    paired = [example for examples in data.train.values() for example in examples]
    assert len(paired) == len(twins.read_text().splitlines()) > 0
    copies = {json.loads(line)["sha256"] for line in twins.read_text().splitlines()}
    from qhk.files import file_digest

    assert {file_digest(example.twin) for example in paired if example.twin} == copies
