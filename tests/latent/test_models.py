"""Which models a study sets side by side, and what it refuses before anything is trained, asked or written."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mind_distill.cli import run
from mind_distill.comparison.specialists import perspectives_of, recipes_of, run_folder
from mind_distill.corpus.perspectives import STANDARD
from mind_distill.errors import UserError
from mind_distill.latent.models import Roster, muster
from mind_distill.latent.study import read_latent_study
from mind_distill.runs import read_settings
from mind_distill.training.settings import resolve_recipe
from tests.conftest import toy_model
from tests.latent.conftest import MakeRun

Write = Callable[..., str]


def mustered(study: str) -> Roster:
    settings, _ = read_latent_study(study)
    known = perspectives_of(settings)
    return muster(settings, study, known, lambda role, name: run_folder(Path("out"), role, name), {})


def refused(study: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says of a study that it refuses; nothing was written."""
    capsys.readouterr()
    assert run(["latent", study, "--output", "out"]) == 2
    assert not Path("out").exists()
    told = capsys.readouterr().err
    assert told.startswith("mind: ") and told.count("\n") == 1, "one sentence, no traceback"
    return told


def test_a_specialist_of_the_seeds_recipe_counts_among_them(write_study: Write) -> None:
    roster = mustered(write_study())
    assert [m.name for m in roster.of("specialist")] == [
        "specialist:symbolic",
        "specialist:planning",
        "specialist:socratic",
    ]
    assert roster.control == ("specialist:planning", "seed:planning-1", "seed:planning-2")
    assert [m.name for m in roster.of("compare")] == ["plain", "other"]
    assert [p.name for p in roster.perspectives][1] == "Planning"


def test_runs_of_different_hidden_widths_are_refused(
    write_study: Write, make_run: MakeRun, toy_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_model(hidden=64).save_pretrained("wide")
    toy_tokenizer.save_pretrained("wide")
    study = write_study(compare={"wide": make_run("runs/wide", base=Path("wide"))})
    told = refused(study, capsys)
    assert "specialist:symbolic has hidden states of width 32, wide of width 64" in told


def test_runs_of_different_base_models_are_refused(
    write_study: Write, make_run: MakeRun, toy_tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_model(seed=1).save_pretrained("second")
    toy_tokenizer.save_pretrained("second")
    told = refused(write_study(compare={"b": make_run("runs/b", base=Path("second"))}), capsys)
    assert "b from second; only runs of one base model can be set side by side" in told


def test_too_few_problems_are_refused(write_study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert "problems: 9 in all; a study needs at least 10" in refused(write_study(problems={"bench.yaml": 9}), capsys)


def test_a_perspective_without_a_specialist_is_refused(write_study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(write_study(perspectives=["symbolic", "planning", "analogy", "socratic"]), capsys)
    assert "perspective 'analogy' has no specialist. Name its run under specialists" in told
    told = refused(write_study(perspectives=None), capsys)
    assert "perspective 'intuitive' has no specialist" in told


def test_weights_that_are_not_finite_are_refused(write_study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    study, file = write_study(), Path("runs/other/adapter/adapter_model.safetensors")
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    assert "other: the weights in runs/other/adapter are not finite" in refused(study, capsys)


def test_seeds_of_other_recipes_or_equal_seeds_are_no_control(
    write_study: Write, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {"a": "runs/planning-1", "b": make_run("runs/faster", "planning", 3, learning_rate=0.1)}
    assert "seed:a and seed:b differ in more than their seed (training.learning_rate)" in refused(
        write_study(seeds=other), capsys
    )
    same = {"a": "runs/planning-1", "b": make_run("runs/again", "planning", 1)}
    assert "seed:a and seed:b have the same seed, 1" in refused(write_study(seeds=same), capsys)


def test_a_run_of_another_perspective_than_it_stands_for_is_refused(
    write_study: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {"symbolic": "runs/symbolic", "planning": "runs/socratic", "socratic": "runs/planning"}
    assert "runs/socratic is trained on perspective 'socratic', but stands for 'planning'" in refused(
        write_study(specialists=runs), capsys
    )


def test_specialists_of_another_precision_are_refused(
    write_study: Write, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {key: f"runs/{key}" for key in ("symbolic", "planning")}
    runs["socratic"] = make_run("runs/half", "socratic", precision="bf16")
    assert "differ in training.precision" in refused(write_study(specialists=runs), capsys)


def test_mistakes_in_the_study_file_are_told_by_key(write_study: Write, capsys: pytest.CaptureFixture[str]) -> None:
    method = {"compare": {"mind": {"method": "mind"}}}
    for changes, sentence in (
        ({"pool": "first"}, "pool: Input should be 'mean', 'last' or 'steps'"),
        ({"problems": None}, "names the 'problems' that every model answers"),
        ({"problems": {"nonsense": 3}}, "Benchmark 'nonsense' is not known"),
        ({"specialist": {}}, "'specialist' is not known. Did you mean 'specialists'?"),
        ({"specialists": {"planning": "runs/planning"}}, "nothing to tell apart with fewer than two"),
        ({"specialists": "all"}, "where do the specialists come from?"),
        (method, "'mind' names a method to train, but the study has no section 'train'"),
        ({"train": {"evaluation": {}}}, "train: 'evaluation' is not known. Valid: student, encoder"),
        ({"compare": {"../x": "runs/plain"}}, "'../x' is no name for a file"),
        ({"compare": {"x": {"run": "runs/plain", "method": "mind"}}}, "give a run's folder, or a method to train"),
        ({"compare": {"x": "runs/nowhere"}}, "x: there is no run directory 'runs/nowhere'"),
        ({"seeds": {"x": "runs/nowhere"}}, "seed:x: there is no run directory 'runs/nowhere'"),
    ):
        assert sentence in refused(write_study(**changes), capsys), changes


def test_the_single_students_of_a_comparison_are_its_specialists(write_study: Write, make_run: MakeRun) -> None:
    cells = [("symbolic", 0), ("planning", 0), ("planning", 1), ("socratic", 0)]
    states = []
    for key, seed in cells:
        name = f"single-{key}-s{seed}"
        make_run(f"table/cells/{name}", key, seed)
        states.append(
            {"name": name, "student": "toy", "row": "single:all", "member": key, "seed": seed, "status": "finished"}
            | {"message": "", "folder": f"cells/{name}", "log": ""}
        )
    empty: dict[str, Any] = {key: [] for key in ("hardware", "students")}
    empty |= {key: {} for key in ("groups", "limits", "versions")}
    empty |= dict.fromkeys(("study", "regime", "budget", "reference", "corpus"), "")
    Path("table/comparison.json").write_text(json.dumps({"format": 1, "resamples": 1, "cells": states, **empty}))
    study = write_study(study="table", specialists=None, seeds={"planning-1": "single-planning-s1"}, compare={})
    roster = mustered(study)
    assert [m.source for m in roster.of("specialist")] == [
        "table/cells/single-symbolic-s0",
        "table/cells/single-planning-s0",
        "table/cells/single-socratic-s0",
    ]
    assert roster.control == ("specialist:planning", "seed:planning-1")


def test_the_packaged_study_trains_eight_specialists_a_control_and_students_of_equal_effort() -> None:
    study, _ = read_latent_study("small/latent")
    recipes = {name: resolve_recipe(values, name) for name, values in recipes_of(study, perspectives_of(study)).items()}
    specialists = [recipe for name, recipe in recipes.items() if name.startswith("specialist-")]
    assert [one.method["perspective"] for one in specialists] == [p.key for p in STANDARD]
    assert len({one.training.model_dump_json() for one in specialists}) == 1, "alike but for the perspective"
    seeds = [recipe for name, recipe in recipes.items() if name.startswith("seed-")]
    planning = recipes["specialist-planning"]
    for one in seeds:
        assert one.method == planning.method and one.training.seed != planning.training.seed
        assert one.training.model_copy(update={"seed": 0}) == planning.training and one.corpus == planning.corpus
    assert len(seeds) >= 2 and {"compare-std-cot", "compare-mind", "compare-uniform"} <= {*recipes}
    assert next(iter(study.compare)) == "std-cot", "the plain student comes first"
    texts = {"compare-std-cot": 4 * 128, "compare-mind": 16 * 4 * 8, "compare-uniform": 16 * 4 * 8}
    assert len(set(texts.values())) == 1
    for name, read in texts.items():
        own = recipes[name].training
        steps = own.max_steps or own.epochs * 128 // own.problems_per_step
        assert steps * own.problems_per_step * (1 if name == "compare-std-cot" else 8) == read


def test_a_run_that_the_study_had_begun_to_train_is_no_obstacle_to_its_resume(
    write_study: Write, make_run: MakeRun
) -> None:
    folder = make_run("out/runs/compare-more", "analogy", 9)
    planned = read_settings(Path(folder))
    Path(folder, "adapter/adapter_model.safetensors").unlink()
    settings, _ = read_latent_study(write_study(compare={"more": folder}))
    known = perspectives_of(settings)
    place = partial(run_folder, Path("out"))
    assert muster(settings, "study", known, place, {folder: planned}).of("compare")[0].source == folder
    with pytest.raises(UserError, match="no finished adapter yet"):
        muster(settings, "study", known, place, {})
