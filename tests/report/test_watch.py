"""The page that is kept up to date."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from qhk.data.image import load_image
from qhk.report import content, images, runs
from qhk.report.compare import compare
from qhk.report.content import ReportOptions
from qhk.report.memory import Memory
from qhk.report.runs import read_runs
from tests.report.builders import module_config, write_run, write_status

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from qhk.report.watch import Report, build_app

OPTIONS = ReportOptions(title="t", reference=None, num_resamples=20, confidence=0.95, thumbnails=False)


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    write_run(tmp_path, "one", 0, noise=0.5, config=module_config(uncertainty=True, perception=True))
    return TestClient(build_app(Report([tmp_path], OPTIONS)), base_url="http://127.0.0.1")


def test_news_change_the_state_and_the_page(client: TestClient, tmp_path: Path) -> None:
    first, page = client.get("/state").json()["state"], client.get("/").text
    assert (
        f'"state": "{first}"' in page and "connect-src &#39;self&#39;" in page or "connect-src 'self'" in page
    )
    assert client.get("/state").json()["state"] == first and client.get("/").text == page
    directory = tmp_path / "study" / "one" / "seed0"
    write_status(directory, state="failed", cause="loss is NaN")
    os.utime(directory / "status.json", ns=(2**62, 2**62))
    assert client.get("/state").json()["state"] != first
    assert "loss is NaN" in client.get("/").text


def test_other_sites_are_kept_out(client: TestClient) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/state", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = module_config(uncertainty=True, perception=True)
    first, second = (write_run(tmp_path, "one", seed, noise=0.5, config=config) for seed in (0, 1))
    report = Report([tmp_path], OPTIONS)
    read: list[Path] = []
    compared: list[str] = []

    def counted(reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda path: (read.append(path), reader(path))[1]

    def counted_compare(*args: Any, **named: Any) -> Any:
        compared.append("compared")
        return compare(*args, **named)

    monkeypatch.setattr(runs, "_read_config", counted(runs._read_config))
    monkeypatch.setattr(runs, "read_results", counted(runs.read_results))
    monkeypatch.setattr(content, "compare", counted_compare)
    report.page()
    assert len(read) == 4 and compared
    del read[:], compared[:]
    (second / "config.yaml").write_text((second / "config.yaml").read_text() + "loading: {workers: 1}\n")
    report.state()
    report.page()
    assert read == [second / "config.yaml"] and not compared
    write_status(first, state="failed", cause="loss is NaN")
    assert "loss is NaN" in report.page() and read == [second / "config.yaml"]


def test_a_picture_is_read_again_only_once_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sets may hold the same file; one that is no picture is left out each time.

    Sets are opened again only where the run's settings changed.
    """
    picture, broken, read = tmp_path / "a.png", tmp_path / "b.png", list[Path]()
    Image.new("RGB", (300, 200), "red").save(picture)
    broken.write_text("no picture")
    record = read_runs(write_run(tmp_path, "one", 0, noise=0.5, config={})).records[0]

    def counted(path: Path, **named: Any) -> Any:
        read.append(path)
        return load_image(path, **named)

    def opened(_: Any, benchmark: str) -> list[tuple[str, Path]]:
        sets.append(benchmark)
        return [("a", picture), ("b", broken)]

    sets: list[str] = []
    monkeypatch.setattr(images, "_picture_paths", opened)
    monkeypatch.setattr(images, "load_image", counted)
    memory = Memory()
    first = images.thumbnails(record, "koniq", ["a", "b"], memory=memory)
    assert list(first) == ["a"] and first["a"].startswith("data:image/jpeg;base64,")
    assert images.thumbnails(record, "spaq", ["a", "b"], memory=memory) == first
    assert read == [picture, broken, broken]
    Image.new("RGB", (200, 300), "blue").save(picture)
    os.utime(picture, ns=(2**62, 2**62))
    assert images.thumbnails(record, "koniq", ["a"], memory=memory)["a"] != first["a"]
    assert sets == ["koniq", "spaq"]
    os.utime(record.directory / "config.yaml", ns=(2**62, 2**62))
    images.thumbnails(record, "koniq", ["a"], memory=memory)
    assert sets == ["koniq", "spaq", "koniq"]
