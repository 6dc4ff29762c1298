"""`mind quickstart`: on a toy student in seconds; and, marked slow, as the README promises it, with the README's commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mind_distill.cli import run as mind
from mind_distill.evaluation.scoring import Paired
from mind_distill.quickstart import Outcome, next_folder, verdict
from mind_distill.runs import Run
from tests.corpus.servers import scripted

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDED = ROOT / "docs" / "quickstart-result.json"


def toy_arguments(toy_folder: Path) -> list[str]:
    small = [
        "corpus.limit=3",
        "corpus.probe=1",
        "evaluation.limit=2",
        "training.precision=fp32",
        "training.save_every=1",
    ]
    return ["quickstart", f"student={toy_folder}", *small]


def test_a_quickstart_shows_before_and_after_and_where_to_go_next(
    toy_folder: Path, hash_encoder: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mind(toy_arguments(toy_folder)) == 0
    said = capsys.readouterr().out
    assert said.startswith("MIND quickstart")
    for part in (
        "1/4",
        "2/4",
        "3/4",
        "4/4",
        "untouched, brief prompt",
        "exact McNemar",
        "before:",
        "after:",
        "mind ask runs/quickstart-1",
    ):
        assert part in said, part
    assert Path("runs/quickstart-1/report.html").is_file()
    assert Run.load("runs/quickstart-1").evaluations() == ["after", "before", "before-brief"]
    assert next_folder() == Path("runs/quickstart-2"), "a second run takes the next free folder"


def test_an_interrupted_quickstart_goes_on_and_ends_alike(
    toy_folder: Path, hash_encoder: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mind_distill.training.loop import Trainer

    assert mind([*toy_arguments(toy_folder), "--output", "whole"]) == 0

    def interrupted(self: Any, interrupt: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_take_step", interrupted)
        assert mind([*toy_arguments(toy_folder), "--output", "cut"]) == 130
    assert "--output cut --resume" in capsys.readouterr().err
    before = (Path("cut/evaluations/before/starter-easy.jsonl")).stat().st_mtime_ns
    assert mind([*toy_arguments(toy_folder), "--output", "cut", "--resume"]) == 0
    assert Path("cut/evaluations/before/starter-easy.jsonl").stat().st_mtime_ns == before, (
        "what is done is not done again"
    )
    one, two = (Outcome(Run.load(name)).values() for name in ("whole", "cut"))
    changing = ("run", "seconds")
    assert {k: v for k, v in one.items() if k not in changing} == {k: v for k, v in two.items() if k not in changing}


def test_no_gain_is_claimed_that_the_test_does_not_show() -> None:
    none = Paired(100, 6, 5, 1.0)
    assert "shows no difference" in verdict(none, none)
    assert "got better, whichever" in verdict(Paired(100, 30, 5, 1e-4), Paired(100, 28, 4, 1e-4))
    only_form = verdict(Paired(100, 37, 5, 1e-4), Paired(100, 10, 12, 0.8))
    assert "got better" not in only_form and "no difference" in only_form
    assert "got worse" in verdict(Paired(100, 5, 30, 1e-4), none)


# `mind latent small/latent` as shipped trains fourteen runs; here two perspectives, one step each
SMALL_LATENT = [
    "perspectives=[planning, socratic]",
    "train.training.max_steps=1",
    "compare.mind.training.max_steps=2",
    "compare.uniform.training.max_steps=1",
    "train.corpus.limit=40",
    "problems.starter-easy=12",
    "tokens=12",
    "geometry.draws=20",
    "encoder.rounds=2",
]
SPECIALISTS = "runs/small-latent/runs"
STUDY = f"""\
specialists: {{planning: {SPECIALISTS}/specialist-planning, socratic: {SPECIALISTS}/specialist-socratic}}
seeds: {{planning-1: {SPECIALISTS}/seed-planning-1, planning-2: {SPECIALISTS}/seed-planning-2}}
compare: {{plain: {SPECIALISTS}/compare-std-cot, mine: runs/mine}}
perspectives: [planning, socratic]
problems: {{starter-easy: 24, starter-strategy: 12}}
tokens: 12
geometry: {{draws: 20}}
encoder: {{rounds: 2}}
"""


def readme_commands(program: str) -> list[list[str]]:
    found = re.findall(rf"^    ({program} .*)$", README, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def test_every_mind_command_of_the_readme_parses_and_its_recipe_resolves() -> None:
    from mind_distill.cli import parse
    from mind_distill.config import read_recipe
    from mind_distill.training.settings import resolve_recipe

    commands = readme_commands("mind")
    assert len(commands) >= 5
    for command in commands:
        options = parse(command[1:])
        if command[1] == "train":
            resolve_recipe(read_recipe(options.recipe, options.overrides), options.recipe)


def test_every_make_target_of_the_readme_exists() -> None:
    targets = {command[1] for command in readme_commands("make")} | {"setup", "lint", "bench"}
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_readme_prints_the_recorded_result() -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    block = re.search(r"```text\n(.*?)```", README, re.DOTALL)
    assert block and block[1].strip() == recorded["text"].strip()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which `mind quickstart` has run as a newcomer would run it."""
    folder = tmp_path_factory.mktemp("newcomer")
    shell(folder, [sys.executable, "-m", "mind_distill.cli", "quickstart"])
    return folder


def shell(folder: Path, command: list[str]) -> str:
    clean = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if "mind_distill.cli" in command:
        assert "FutureWarning" not in done.stderr, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_quickstart_gives_what_the_readme_shows(real: Path) -> None:
    """Not bit for bit, since bfloat16 kernels differ between processors, but the same findings."""
    found = Outcome(Run.load(real / "runs/quickstart-1")).values()
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))["values"]
    assert found["n"] == recorded["n"] >= 100
    for label, share in recorded["accuracy"].items():
        assert found["accuracy"][label] == pytest.approx(share, abs=0.12), label  # type: ignore[index]
    for label, loss in recorded["gold_loss"].items():
        assert found["gold_loss"][label] == pytest.approx(loss, abs=0.1), label  # type: ignore[index]
    assert found["gold_loss"]["after"] < found["gold_loss"]["before"] - 0.3  # type: ignore[index]
    assert found["gained"] > found["lost"]  # type: ignore[operator]
    assert found["parsed"]["after"] > 0.9  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_readmes_other_commands_run(real: Path) -> None:
    from mind_distill.corpus.read import Corpus
    from mind_distill.records import to_json
    from mind_distill.tasks.base import load_benchmark

    lessons = list(Corpus.load("starter", slice="easy"))[:12]
    (real / "my-lessons.jsonl").write_text("".join(to_json(lesson) + "\n" for lesson in lessons), encoding="utf-8")
    questions = load_benchmark("starter-easy")[:6]
    (real / "my-questions.jsonl").write_text("".join(to_json(q) + "\n" for q in questions), encoding="utf-8")
    cups = "Ann has {} red cups and Ben brings {} blue ones. How many cups are there?,{}"
    rows = ["question,answer", *(cups.format(n, n + 2, 2 * n + 2) for n in range(4, 9))]
    (real / "problems.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (real / "STUDY.yaml").write_text(STUDY, encoding="utf-8")
    with scripted(real) as server:
        recipe = re.search(r"^    problems: .*\n(?:    .*\n)+", README, re.MULTILINE)
        assert recipe
        written = "\n".join(line[4:] for line in recipe[0].splitlines())
        (real / "recipe.yaml").write_text(written.replace("http://127.0.0.1:8000/v1", server.address), encoding="utf-8")
        for command in readme_commands("mind"):
            if "paper/mind-1.5b" in command:
                continue  # needs a 1.5B model from the hub
            limits = {"train": ["evaluation.limit=6"]}
            if command[1] == "evaluate" and "--compare" not in command:
                limits["evaluate"] = ["--limit", "6"]
            if command[2] == "small/latent":
                limits["latent"] = SMALL_LATENT
            said = shell(real, [sys.executable, "-m", "mind_distill.cli", *command[1:], *limits.get(command[1], [])])
            assert said.strip(), command
    script = re.search(r"^In Python:\n\n((?:    .*\n)+)", README, re.MULTILINE)
    assert script
    code = "\n".join(line[4:] for line in script[1].splitlines())
    assert "mind on embedded: finished" in shell(real, [sys.executable, "-c", code])
