"""The runs that a latent study describes by a method, trained as cells are: each once, in a process of its own, with a log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mind_distill.comparison.launch import STOPPED, Job, find_devices, last_line, run_all
from mind_distill.config import merge, to_yaml
from mind_distill.corpus.perspectives import STANDARD, Perspective
from mind_distill.corpus.read import Corpus
from mind_distill.errors import CellsFailed, Stopped
from mind_distill.latent.study import Entry, LatentSettings, Role
from mind_distill.pipeline import prepare_lessons, resolved_settings
from mind_distill.runs import Run, claim_output, publish, read_settings
from mind_distill.terminal import Face
from mind_distill.training.settings import CorpusSettings, resolve_recipe


class Wanted(NamedTuple):
    """One run to train: its name in files, its recipe, and its settings as they will be resolved."""

    name: str
    recipe: dict[str, Any]
    resolved: dict[str, Any]


def run_name(role: Role, name: str) -> str:
    """How a run of this study is called in its folders and logs."""
    return f"{role}-{name}"


def run_folder(output: Path, role: Role, name: str) -> Path:
    """Where a run that the study trains lies."""
    return output / "runs" / run_name(role, name)


def perspectives_of(study: LatentSettings) -> tuple[Perspective, ...]:
    """The perspectives there are to study: the corpus's where the study trains, else the standard set; or those it lists."""
    known: tuple[Perspective, ...] = STANDARD
    if study.train:
        section = CorpusSettings.resolve(study.train.get("corpus") or {}, "train.corpus")
        corpus = Corpus.load(section.source)
        known = (corpus.only(section.perspectives) if section.perspectives else corpus).perspectives
    elif isinstance(study.specialists, dict) and not set(study.specialists) <= {p.key for p in STANDARD}:
        known = tuple(Perspective(key, key, "") for key in study.specialists)
    return tuple(p for p in known if study.perspectives is None or p.key in study.perspectives)


def recipes_of(study: LatentSettings, known: Sequence[Perspective]) -> dict[str, dict[str, Any]]:
    """The recipe of every run that the study trains, by its name."""
    entries = study.entries()
    if study.specialists == "all" and study.train and study.study is None:
        entries = [*(_specialist(p.key) for p in known), *entries]
    found = {}
    for role, name, entry in entries:
        if entry.method is not None:
            own = {"method": entry.method, "training": entry.training, "corpus": entry.corpus}
            found[run_name(role, name)] = merge(study.train, own) | {"evaluation": {"benchmarks": []}}
    return found


def _specialist(key: str) -> tuple[Role, str, Entry]:
    return "specialist", key, Entry(method={"name": "single", "perspective": key})


def wanted_runs(study: LatentSettings, known: Sequence[Perspective]) -> list[Wanted]:
    """Every run that the study trains, its recipe resolved and held against its lessons, so that a mistake is told now."""
    found = []
    for name, recipe in recipes_of(study, known).items():
        settings = resolve_recipe(recipe, name)
        found.append(Wanted(name, recipe, resolved_settings(settings, prepare_lessons(settings, None))))
    return found


def train_runs(wanted: Sequence[Wanted], output: Path, face: Face, force: bool = False) -> None:
    """Train those that are not finished; Stopped or CellsFailed if one does not finish.

    A UserError where one was begun with other settings, unless `force`.
    """
    for one in () if force else wanted:
        claim_output(output / "runs" / one.name, True, one.resolved)
    jobs = [_job(one, output, force) for one in wanted if not _is_finished(one, output)]
    if not jobs:
        return
    devices = find_devices("auto", 1)
    face.say(f"{len(jobs)} runs to train, {min(len(devices), len(jobs))} at a time. Logs: {output / 'logs'}.")
    lost: dict[str, int] = {}
    with face.track("Runs", len(jobs)) as advance:

        def ended(job: Job, status: int, seconds: float) -> None:
            advance(1)
            if status == 0:
                face.say(f"{job.name}: trained in {seconds:.0f} s.")
                return
            lost[job.name] = status
            face.say(f"{job.name}: did not finish (exit status {status}: {last_line(job.log)}). Log: {job.log}")

        run_all(jobs, devices, lambda job: True, ended, face.say)
    if lost:
        told = (
            f"{len(lost)} of {len(wanted)} runs did not finish: {', '.join(lost)}. Their logs are in {output / 'logs'}."
        )
        raise Stopped(told) if set(lost.values()) <= STOPPED else CellsFailed(told)


def _job(one: Wanted, output: Path, force: bool) -> Job:
    recipe = output / "recipes" / f"{one.name}.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    publish(recipe, to_yaml(one.recipe))
    return Job(one.name, recipe, output / "runs" / one.name, output / "logs" / f"{one.name}.log", (), force)


def _is_finished(one: Wanted, output: Path) -> bool:
    folder = output / "runs" / one.name
    if not (folder / "run.json").is_file() or not (folder / "settings.yaml").is_file():
        return False
    return Run(folder).status == "finished" and read_settings(folder) == json.loads(json.dumps(one.resolved))
