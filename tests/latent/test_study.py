"""`mind latent` from end to end on toy students: what it writes, what it keeps, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mind_distill.cli import run
from mind_distill.corpus.perspectives import STANDARD
from mind_distill.corpus.read import Corpus
from mind_distill.latent.run import Found
from mind_distill.latent.spaces import subjects_of
from mind_distill.latent.states import Point
from mind_distill.report.maps import read_map
from mind_distill.runs import Run
from tests.latent.conftest import KEYS, rows_of
from tests.training.toys import SMALL

Write = Callable[..., str]
MAPS = {"map.json", "map-text.json", "map-text-raw.json", "map-own-text.json", "map-same-text.json", "map-seed.json"}


def read(name: str) -> Any:
    return json.loads(Path(name).read_text())


def files(folder: str) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(Path(folder).rglob("*")) if f.is_file()}


@pytest.mark.usefixtures("hash_embedding")
def test_a_study_is_read_measured_drawn_and_measured_again_from_what_is_stored(
    write_study: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study()
    assert run(["latent", study, "--output", "out", "threads=1"]) == 0
    told = capsys.readouterr().out
    _geometry_holds_every_space_and_control()
    _students_are_set_among_the_specialists()
    for sentence in (
        "Clusters that were found without labels",
        "seed",
        "plain",
        "other covers more",
        "Report: out/report.html",
    ):
        assert sentence in told
    assert Run.load("out").status == "finished" and Run.load("out").info()["job"] == "latent"
    before = files("out")
    assert run(["latent", study, "--output", "out", "threads=1", "--redo"]) == 0
    after = files("out")
    changed = {name for name in before if after[name] != before[name]}
    assert changed <= {"run.json", "report.html"}, "measuring again changes nothing"


def _geometry_holds_every_space_and_control() -> None:
    spaces = read("out/geometry.json")["spaces"]
    assert {*spaces} == {
        *("states", "pca", "text", "same-text", "same-text-pca", "seed", "seed-same-text", "teacher", "teacher-centred")
    }
    own = spaces["states"]
    assert own["models"] == [p.name for p in STANDARD if p.key in KEYS], "the names of perspectives, in their order"
    assert own["points"] == 3 * own["problems"] >= 30 and spaces["seed"]["models"][0] == "specialist:planning"
    measures = {one["name"]: one for one in own["measures"]}
    assert {"ari_perspective", "ari_subject", "nmi_perspective", "silhouette_perspective", "probe_perspective"} <= {
        *measures
    }
    assert (
        measures["separation_excess"]["low"]
        <= measures["separation_excess"]["value"]
        <= measures["separation_excess"]["high"]
    )
    assert isinstance(own["converged"], bool) and own["because"] and np.isfinite(own["held_out"])
    assert np.shape(own["distances"]) == (3, 3)
    assert len(read("out/geometry.json")["verdicts"]) >= 6
    for key in spaces:
        assert {f.name for f in Path("out/spaces", key).iterdir()} >= {
            "encoder.safetensors",
            "points.safetensors",
            "points.jsonl",
        }


def _students_are_set_among_the_specialists() -> None:
    inclined = read("out/inclination.json")
    rows = {(row["model"], row["benchmark"], row["subject"]): row for row in inclined["rows"]}
    assert {*rows} == {(m, "bench", s) for m in ("plain", "other") for s in (None, "odd", "even")}
    for row in rows.values():
        assert sum(row["inclination"]) == pytest.approx(1) and 0 < row["coverage"]["value"] <= 1
    assert {f.name for f in Path("out").glob("map*.json")} == MAPS | {
        "map-student-plain.json",
        "map-student-other.json",
    }
    field, own = read_map(Path("out/map.json")), read_map(Path("out/map-student-plain.json"))
    assert field and own and field.runs == ["specialists"] and own.runs == ["specialists", "plain"]
    assert [(p["x"], p["y"]) for p in read("out/map-student-plain.json")["points"]][: field.total] == [
        (p["x"], p["y"]) for p in read("out/map.json")["points"]
    ], "a student is placed into the specialists' map, which does not move"
    drawn = {f.name for f in Path("out/figures").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in ("figure-4", "figure-5-other") for kind in ("svg", "png")}


@pytest.fixture
def reading_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured, where a test is about what is trained, asked and stored."""
    from mind_distill.comparison import latent

    monkeypatch.setattr(latent, "_measure", lambda *_: Found({}, {}, ""))


@pytest.mark.usefixtures("reading_only")
def test_a_killed_study_goes_on_and_stores_the_same_bytes(
    write_study: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mind_distill.latent import collect

    study = write_study()
    assert run(["latent", study, "--output", "whole"]) == 0
    original, calls = collect.read_batch, [0]

    def dying(*given: Any) -> Any:
        calls[0] += 1
        if calls[0] == 10:
            raise KeyboardInterrupt
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(collect, "read_batch", dying)
        assert run(["latent", study, "--output", "cut"]) == 130
    assert "--resume" in capsys.readouterr().err
    assert run(["latent", study, "--output", "cut"]) == 2
    assert "holds a latent study already" in capsys.readouterr().err
    assert run(["latent", study, "--output", "cut", "--resume"]) == 0
    assert files("cut/states") == files("whole/states") and len(rows_of(Path("cut"))) > 60


@pytest.mark.usefixtures("reading_only")
def test_states_read_under_other_settings_are_kept_unless_forced(
    write_study: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["latent", write_study(), "--output", "out"]) == 0
    before, study = files("out/states"), write_study(pool="last")
    assert run(["latent", study, "--output", "out", "--resume"]) == 2
    assert "pool ('mean' then, 'last' now)" in capsys.readouterr().err and files("out/states") == before
    assert run(["latent", study, "--output", "out", "--redo", "--force"]) == 2, "nothing is read again there"
    assert run(["latent", study, "--output", "out", "--resume", "--force"]) == 0
    assert files("out/states") != before


@pytest.mark.usefixtures("hash_embedding")
@pytest.mark.parametrize("teacher", [{"source": "corpus", "limit": 2}, {"source": "holes"}])
def test_a_teachers_corpus_too_small_to_fit_is_left_out(
    teacher: dict[str, Any], write_study: Write, toy_corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two problems; or many, of which none has a rationale for every perspective."""
    lacking = [replace(lesson, rationales=lesson.rationales[1:]) for lesson in toy_corpus]
    Corpus(lacking, toy_corpus.perspectives, "holes").save("holes")
    assert run(["latent", write_study(seeds=None, compare={}, teacher=teacher), "--output", "out"]) == 0
    assert {*read("out/geometry.json")["spaces"]} == {"states", "pca", "text", "same-text"}
    told = capsys.readouterr().out
    assert "each problem's mean removed: left out." in told and "are too few for z of width 4" in told


@pytest.mark.usefixtures("hash_embedding")
def test_without_seeds_nothing_is_called_separated(write_study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(seeds=None, compare={}, pool="steps", teacher={"source": "nowhere/at/all"})
    assert run(["latent", study, "--output", "out", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["geometry"]
    verdicts = {one["claim"]: one for one in found["verdicts"]}
    (open_,) = [one for claim, one in verdicts.items() if claim.startswith("Perspectives separate more than seeds")]
    assert open_["holds"] is None and "there is no seed control" in open_["because"]
    assert verdicts["The separation is more than the words: it is in the parameters."]["holds"] is None
    assert (
        "teacher" not in found["spaces"]
        and found["spaces"]["states"]["points"] > found["spaces"]["states"]["problems"] * 3
    )


def test_a_folder_of_something_else_is_not_written_into(write_study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study()
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("")
    assert run(["latent", study, "--output", "mine"]) == 2
    assert run(["latent", study, "--output", "runs/planning", "--resume"]) == 2
    assert run(["latent", study, "--output", "new", "--redo"]) == 2
    told = capsys.readouterr().err
    assert told.count("not a latent study") == 2 and "no models.json" in told


@pytest.mark.slow
@pytest.mark.usefixtures("reading_only")
def test_specialists_seeds_and_students_are_trained_where_the_study_says_with_what(
    write_study: Write, in_process: list[str], toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {
        "student": str(toy_folder),
        "answer_format": "sentence",
        "corpus": {"source": "corpus"},
        "training": {"epochs": 1, "problems_per_step": 3, "precision": "fp32", "learning_rate": 1e-5, "threads": 1},
    }
    study = write_study(
        train=train,
        specialists=None,
        perspectives=("symbolic", "planning"),
        seeds={"planning-1": {"method": "single:planning", "training": {"seed": 1}}},
        compare={"mind": {"method": {"name": "mind", **SMALL}}, "uniform": {"method": "uniform"}},
    )
    assert run(["latent", study, "--output", "out"]) == 0
    trained = ["specialist-symbolic", "specialist-planning", "seed-planning-1", "compare-mind", "compare-uniform"]
    assert in_process == trained
    assert read("out/models.json")["control"] == ["specialist:planning", "seed:planning-1"]
    first = Run.load("out/runs/specialist-symbolic").settings()
    assert "MetaNet is not examined as a probe: out/runs/compare-mind" in capsys.readouterr().out, (
        "six problems are too few"
    )
    assert first["method"] == {"name": "single", "perspective": "symbolic"}
    before = files("out/states")
    assert run(["latent", study, "--output", "out", "--resume"]) == 0
    assert len(in_process) == 5 and files("out/states") == before, "finished runs are neither trained nor read again"


def test_seeds_that_would_be_trained_by_another_recipe_are_refused_before_anything_is_trained(
    write_study: Write, in_process: list[str], toy_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = {"student": str(toy_folder), "answer_format": "sentence", "corpus": {"source": "corpus"}}
    faster = {
        "a": {"method": "single:planning", "training": {"learning_rate": 0.5, "seed": 1}},
        "b": {"method": "uniform"},
    }
    study = write_study(train=train, specialists=None, seeds=faster, compare={})
    assert run(["latent", study, "--output", "out"]) == 2
    assert "seed:a and seed:b differ in more than their seed" in capsys.readouterr().err
    assert not in_process and not Path("out").exists()


def test_subjects_of_a_few_problems_are_not_set_apart() -> None:
    points = [
        Point("m", "", f"{k}-{n}", k, "bench", "") for k, count in (("algebra", 5), ("wind", 1)) for n in range(count)
    ]
    points.append(Point("m", "", "x", "", "bench", ""))
    assert subjects_of(points) == ["algebra"] * 5 + ["bench", "bench"]
    assert subjects_of(points, rare="")[4:] == ["algebra", "", ""]
    assert subjects_of([points[0]] * 9) == ["bench"] * 9, "steps of one problem are not several problems"
