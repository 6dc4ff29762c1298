"""What `mind latent` measured on the page: tables with their intervals, heat maps, answers; damaged and hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mind_distill.cli import run as mind
from mind_distill.corpus.read import Corpus
from mind_distill.runs import Run
from tests.report.latent_files import geometry, inclination, preference, write_latent
from tests.report.pages import HOSTILE, Page, assert_harmless, page_of
from tests.report.toy_run import write_map, write_run


@pytest.fixture
def latent(tmp_path: Path) -> Path:
    write_latent(tmp_path / "latent")
    return tmp_path / "latent"


def test_a_folder_of_measurements_alone_is_a_report(latent: Path) -> None:
    write_map(latent / "map.json")
    assert mind(["report", str(latent), "--output", "x.html"]) == 0
    page = Page(Path("x.html"))
    assert_harmless(page)
    assert "Latent: latent" in page.text
    for absent in ("unknown student", "Not in this run", "Before and after", "No training step"):
        assert absent not in page.text
    anchors = {attrs.get("href") for tag, attrs in page.tags if tag == "a"} - {None}
    ids = {f"#{attrs['id']}" for _, attrs in page.tags if "id" in attrs}
    assert {f"#run0-{name}" for name in ("geometry", "inclination", "probe", "maps")} <= anchors
    assert anchors <= ids


def test_geometry_shows_each_number_with_its_interval_and_what_chance_gives(latent: Path) -> None:
    text = page_of(Run(latent)).text
    assert "Claim True: holds." in text
    assert "Claim False: does not hold." in text
    assert "Claim None: cannot be told." in text
    assert "ARI, perspective 0.60 (0.50 to 0.70)* 0.60 (0.50 to 0.70)*" in text
    assert "ARI, subject 0.02 (−0.08 to 0.12) –" in text
    assert "ARI, perspective 0.60 (0.50 to 0.70) 0.01 0.03 0.005" in text
    assert (
        "320 points, of 9 models, 9 active components, did not converge, held-out log-likelihood -3.2 a point." in text
    )


def test_inclination_is_a_heat_map_of_benchmarks_with_numbers_below(latent: Path) -> None:
    page = page_of(Run(latent))
    assert "mind, starter-easy (40) 0.50 (0.40 to 0.60)" in page.text
    assert "mind, number theory (40) 0.30 (0.25 to 0.35) 0.10 (0.05 to 0.15)" in page.text
    assert 'aria-label="Which specialist the answers lie near"' in page.source
    assert 'aria-label="Which specialist the answers lie near, by subject"' in page.source


def test_the_probe_gives_its_answers_with_the_numbers_they_rest_on(latent: Path) -> None:
    page = page_of(Run(latent))
    assert "A preference: intrinsic. Because." in page.text
    assert (
        "over all problems 0.40 0.001 0.40 0.05 (at most 0.10) 0.05 0.30 0.001 0.90 (0.80 to 1.00) 0.001" in page.text
    )
    assert "Lag of alpha behind the student's losses: 2 steps (0 to 4), correlation there 0.70" in page.text
    for title in (
        "Loss of the student",
        "Loss of MetaNet",
        "Rank agreement",
        "Who follows whom",
        "Mean alpha by subject, last third",
    ):
        assert f'aria-label="{title}"' in page.source
    assert "shift 2\ncorrelation: 0.70" in [attrs.get("data-said") for _, attrs in page.tags]


def test_measurements_beside_a_run_are_a_part_of_its_page(tmp_path: Path, toy_corpus: Corpus) -> None:
    run = write_run(tmp_path / "run", toy_corpus)
    write_latent(run.path)
    text = page_of(run).text
    assert "Before and after" in text
    assert "Cognitive inclination" in text


@pytest.mark.parametrize("payload", HOSTILE)
def test_texts_of_the_files_are_shown_and_never_run(tmp_path: Path, payload: str) -> None:
    write_latent(tmp_path / "latent", payload)
    assert_harmless(page_of(Run(tmp_path / "latent")))


ODD: tuple[Any, ...] = (None, [], {}, "text", 3, {"spaces": [], "rows": {}, "runs": 7, "verdicts": "x"})


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_what_cannot_be_read_is_said_not_raised(tmp_path: Path, odd: Any) -> None:
    for name in ("geometry", "inclination", "preference"):
        (tmp_path / f"{name}.json").write_text(json.dumps(odd))
    text = page_of(Run(tmp_path)).text
    assert text.count("cannot be read.") + text.count("that can be read.") == 3


@pytest.mark.parametrize("odd", [None, [], {}, "text", -3, 1e300, [[None]]], ids=repr)
def test_any_value_may_be_of_another_kind(tmp_path: Path, odd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key of every object in turn, at any depth; the figures are not drawn each time."""
    for name in ("latent.shares_table", "probe.shares_table", "probe.lines_over_steps", "probe.lines_over_shifts"):
        monkeypatch.setattr(f"mind_distill.report.{name}", lambda *_, **__: None)
    for name in ("latent", "probe"):
        monkeypatch.setattr(f"mind_distill.report.{name}.draw", lambda *_: "")

    def changed(value: Any, at: list[int]) -> Any:
        at[0] -= 1
        if at[0] == 0:
            return odd
        if isinstance(value, dict):
            return {key: changed(inner, at) for key, inner in value.items()}
        return [changed(value[0], at), *value[1:]] if isinstance(value, list) and value else value

    for name, make in (("geometry", geometry), ("inclination", inclination), ("preference", preference)):
        place = 1
        while True:
            left = [place]
            values = changed(make(), left)
            if left[0] > 0:
                break
            (tmp_path / f"{name}.json").write_text(json.dumps(values))
            read_all(tmp_path)
            place += 1
        (tmp_path / f"{name}.json").write_text(json.dumps(make()))


def read_all(folder: Path) -> None:
    """What the page takes from the files, without drawing the figures anew."""
    from mind_distill.report import latent, probe
    from mind_distill.report.source import Source

    source = Source(Run(folder))
    found = latent.inclinations(source)
    _ = found and (found.whole, found.parts, [row.name for row in found.rows], found.figure())
    space = latent.geometry(source)
    _ = space and [(s.title, s.facts, s.measure("x")) for s in space.spaces]
    probe.probes(source)


def test_a_folder_without_any_measurement_is_no_run(tmp_path: Path) -> None:
    assert mind(["report", str(tmp_path)]) == 2
