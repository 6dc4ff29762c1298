"""The latent stage: states and texts of every model are stored, then measured and drawn as often as wanted.

A folder holds `states/`, `texts/`, `spaces/`, geometry.json, inclination.json, map*.json and, where a run of method mind is
compared, preference.json (docs/formats.md).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mind_distill.corpus.perspectives import Perspective
from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.latent import findings
from mind_distill.latent.collect import LEAST, OWN, ROSTER, SAME
from mind_distill.latent.control import Verdict, compare_with_control
from mind_distill.latent.geometry import Measure, measure
from mind_distill.latent.inclination import (
    Answers,
    Row,
    component_centroids,
    inclinations,
    incline,
    perspective_centroids,
    radius_factor,
    task_dependence,
)
from mind_distill.latent.models import Model, Roster
from mind_distill.latent.pictures import FILES, write_figures, write_map, write_students
from mind_distill.latent.spaces import (
    TITLES,
    Embed,
    Floats,
    Reading,
    Space,
    describe,
    embedded,
    fit_space,
    number_problems,
    save_space,
    subjects_of,
    teacher_states,
)
from mind_distill.latent.states import Point, States, read_states
from mind_distill.latent.study import LatentSettings
from mind_distill.runs import publish, read_settings
from mind_distill.terminal import Face
from mind_distill.training.settings import CorpusSettings

FORMAT = 1
JOB = "latent"  # in run.json


class Found(NamedTuple):
    """What a study found: geometry.json and inclination.json as values, and the table for a person."""

    geometry: dict[str, Any]
    inclination: dict[str, Any]
    text: str


LINEAR = {"kind": "pca"}
SAME_POINTS = {"pca": "states", "same-text-pca": "same-text"}  # spaces that share a reduction with one measured before
STORED = ("problems", "tokens", "pool", "batch")  # settings that the stored states depend on


def claim(output: Path, study: LatentSettings, resume: bool, force: bool) -> None:
    """A UserError where the folder is taken, or holds states that were read under other settings."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; --output names a folder.")
    if not output.exists() or not any(entry.name != "lock" for entry in output.iterdir()):
        return
    if (
        not (output / "run.json").is_file()
        or json.loads((output / "run.json").read_text(encoding="utf-8"))["job"] != JOB
    ):
        raise UserError(f"{output} is not empty and not a latent study. Choose another --output.")
    if not (output / "settings.yaml").is_file():
        return
    if not resume:
        raise UserError(
            f"{output} holds a latent study already. Continue it with --resume, measure and draw it again with --redo, or choose "
            "another --output."
        )
    before, now = read_settings(output), study.model_dump(mode="json")
    changed = [f"{key} ({before.get(key)!r} then, {now[key]!r} now)" for key in STORED if before.get(key) != now[key]]
    if changed and not force and (output / "states").is_dir():
        raise UserError(
            f"{output} holds states that were read with other settings: {', '.join(changed)}. Continue with the same, read them "
            "again with --resume --force, or choose another --output."
        )


def stored_roster(output: Path) -> Roster:
    """The models whose states are stored in a folder."""
    file = output / ROSTER
    if not file.is_file():
        raise UserError(
            f"{output} holds no stored states (no {ROSTER}). Run `mind latent` on the study without --redo first."
        )
    values = json.loads(file.read_text(encoding="utf-8"))
    models = tuple(Model(**model) for model in values["models"])
    perspectives = tuple(Perspective(**one) for one in values["perspectives"])
    return Roster(perspectives, Model(**values["base"]), models, tuple(values["control"]))


class Analysis:
    """Everything that is measured and drawn from stored states; no student is loaded."""

    def __init__(self, study: LatentSettings, roster: Roster, output: Path, embed: Embed, face: Face) -> None:
        self.study, self.roster, self.output, self.embed, self.face = study, roster, output, embed, face
        self.own, self.same = (read_states(output / "states", name) for name in (OWN, SAME))
        self.numbering = number_problems([*self.own.points, *self.same.points])
        self.spaces: dict[str, Space] = {}
        self.measures: dict[str, list[Measure]] = {}
        self.verdicts: list[Verdict] = []

    def run(self) -> Found:
        """geometry.json, inclination.json, maps, and the table."""
        readings = self._readings()
        with self.face.track("Measuring spaces", len(readings)) as advance:
            for reading in readings:
                try:
                    self._measure(reading)
                except UserError as problem:
                    if not reading.of_teacher:
                        raise
                    self.face.say(f"{TITLES[reading.key]}: left out. {problem}")
                advance(1)
        self._judge()
        rows, inclined = self._incline()
        spaces = {key: describe(space, self.measures[key]) for key, space in self.spaces.items()}
        geometry = {
            "format": FORMAT,
            "spaces": spaces,
            "verdicts": [one.to_json() for one in self.verdicts],
        }
        names = [p.name for p in self.roster.perspectives]
        publish(self.output / "geometry.json", _json(geometry))
        publish(self.output / "inclination.json", _json(inclined))
        write_figures(self.output, [model.name for model in self.roster.of("compare")])
        return Found(geometry, inclined, findings.table(spaces, rows, names, self.verdicts))

    def _readings(self) -> list[Reading]:
        names = {p.key: p.name for p in self.roster.perspectives}
        specialists = [model.name for model in self.roster.of("specialist")]
        own, same = self.own.of(specialists), self.same.of(specialists)

        def perspective(point: Point) -> str:
            return point.perspective

        found = [
            Reading("states", names, own, perspective, {}),
            Reading("pca", names, own, perspective, LINEAR),
            Reading("text", names, embedded(own, self.embed), perspective, {}),
            Reading("same-text", names, same, perspective, {}),
        ]
        if len(self.roster.control) > 1:
            seeds = {name: name for name in self.roster.control}
            found.append(Reading("same-text-pca", names, same, perspective, LINEAR))
            for key, states in (("seed", self.own), ("seed-same-text", self.same)):
                found.append(Reading(key, seeds, states.of(list(seeds)), lambda point: point.model, LINEAR))
        teacher = self._teacher(list(names))
        if teacher is not None:
            found.append(Reading("teacher", names, teacher, perspective, {"centre": False}))
            found.append(Reading("teacher-centred", names, teacher, perspective, {}))
        return found

    def _teacher(self, keys: Sequence[str]) -> States | None:
        """The teacher's rationales in embedding space; None if the corpus is not at hand, and the table says so."""
        try:
            corpus = teacher_corpus(self.study, self.roster).only(keys)
        except UserError as problem:
            self.face.say(f"The teacher's side (Figure 4c) is left out: {problem}")
            return None
        return teacher_states(corpus, self.embed)

    def _measure(self, reading: Reading) -> None:
        numbering = number_problems(reading.states.points) if reading.of_teacher else self.numbering
        twin = self.spaces.get(SAME_POINTS.get(reading.key, ""))
        reduction = twin.encoder.reduction if twin else None
        space = fit_space(reading, numbering, self.study.encoder, self.study.seed, reduction)
        self.spaces[reading.key] = space
        self.measures[reading.key] = measure(space.numbers, self.study.geometry, self.study.seed)
        save_space(space, self.output / "spaces" / reading.key)

    def _judge(self) -> None:
        """Claims of section 3.2 against their controls."""
        named = {key: findings.by_name(measures) for key, measures in self.measures.items()}
        controls: dict[str, Verdict] = {}
        for key, linear, beside in (("states", "pca", "seed"), ("same-text", "same-text-pca", "seed-same-text")):
            if beside in self.spaces:
                # compared by principal components: the autoencoder shrinks the spread within a model
                found = compare_with_control(
                    self.spaces[linear].numbers, self.spaces[beside].numbers, self.study.geometry, self.study.seed
                )
                self.measures[key] += found.measures
                where = "own rationales" if key == "states" else "the same neutral texts"
                controls[key] = replace(found.verdict, claim=f"{found.verdict.claim} ({where}).")
        absent = findings.no_control("own rationales")
        self.verdicts += [*findings.clusters(named["states"], named["pca"]), controls.get("states", absent)]
        self.verdicts += [controls["same-text"]] if "same-text" in controls else []
        self.verdicts.append(
            findings.not_only_words(named["states"], named["text"], named["same-text"], controls.get("same-text"))
        )
        if "teacher-centred" in named:
            self.verdicts.append(findings.told_apart("The teacher's rationales", named["teacher-centred"]))

    def _incline(self) -> tuple[list[Row], dict[str, Any]]:
        """Every compared student among the specialists: inclination.json, the students' maps, and claims of section 4.3."""
        space, draws, seed = self.spaces["states"], self.study.geometry.draws, self.study.seed
        names = list(space.names)
        centroids = perspective_centroids(space.z, space.numbers.perspective, names)
        parts = component_centroids(space.z, space.numbers.perspective, names, space.encoder.mixture)
        centres = space.encoder.centres(space.rows, space.numbers.problem)
        specialists = _answers(space.z, space.points, space)
        factor = radius_factor(len(names)) if space.encoder.settings.centre else 1.0
        rows, components, students = list[Row](), list[Row](), dict[str, Any]()
        compared = [model.name for model in self.roster.of("compare")]
        for name in compared:
            states = _known(self.own.of([name]), space)
            if len(states.points) < LEAST:
                self.face.say(
                    f"{name} answered {len(states.points)} of the specialists' problems; it is left out of Figure 5."
                )
                continue
            problems = np.array([space.problems[p.benchmark, p.id] for p in states.points])
            answers = _answers(space.encoder.project(states.rows, problems, centres), states.points, space)
            rows += inclinations(name, answers, centroids, draws, seed, specialists, factor)
            components += inclinations(name, answers, parts, draws, seed, specialists, factor)
            students[name] = (answers.z, states.points, [names[k] for k in incline(answers.z, centroids).argmax(1)])
            for by, tasks in (("benchmark", answers.benchmark), ("subject", answers.subject)):
                named = np.flatnonzero([task != "" for task in tasks])
                if len({tasks[i] for i in named}) > 1:
                    found = task_dependence(answers.take(named), centroids, by, draws, seed)
                    self.verdicts.append(findings.depends_on_task(name, by, found))
        for other in compared[1:]:
            self.verdicts += findings.coverage(compared[0], other, rows)
        self._draw(students)
        inclined = {
            "format": FORMAT,
            "perspectives": names,
            "centroids": centroids.to_json(),
            "rows": [row.to_json() for row in rows],
            "components": parts.to_json(),
            "by_component": [row.to_json() for row in components],
        }
        return rows, inclined

    def _draw(self, students: dict[str, Any]) -> None:
        wanted = [key for key in FILES if key in self.spaces and key != "states"]
        for stale in [self.output / FILES[key] for key in FILES if key not in self.spaces]:
            stale.unlink(missing_ok=True)  # of an earlier form of the study
        with self.face.track("Drawing maps", len(wanted) + 1) as advance:
            write_students(self.spaces["states"], students, self.output, self.study.map, self.study.seed)
            advance(1)
            for key in wanted:
                write_map(self.spaces[key], self.output, self.study.map, self.study.seed)
                advance(1)


def _answers(z: Floats, points: Sequence[Point], space: Space) -> Answers:
    problems = np.array([space.problems[p.benchmark, p.id] for p in points], dtype=np.int64)
    return Answers(z, problems, [p.benchmark for p in points], subjects_of(points, rare=""))


def _known(states: States, space: Space) -> States:
    """Answers to problems that every specialist has answered too: only there a mean to subtract is known."""
    places = [i for i, p in enumerate(states.points) if (p.benchmark, p.id) in space.problems]
    return States(states.rows[places], [states.points[i] for i in places])


def teacher_corpus(study: LatentSettings, roster: Roster) -> Corpus:
    """The corpus whose rationales stand for the teacher."""
    section = study.teacher
    if section is None and study.train:
        section = CorpusSettings.resolve(study.train.get("corpus") or {}, "train.corpus")
    if section is None:
        settings = read_settings(Path(roster.models[0].source))["corpus"]
        section = CorpusSettings.resolve(
            {k: v for k, v in settings.items() if k in CorpusSettings.model_fields}, "corpus"
        )
    corpus = Corpus.load(section.source, section.slice)
    return corpus.take(section.limit, study.seed) if section.limit else corpus


class TextEmbedder:
    """Texts to vectors, through the cache: a text is embedded once. The sentence encoder is loaded at the first call."""

    def __init__(self, source: str, face: Face) -> None:
        self.source, self.face = source, face
        self._cache: Any = None

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        if self._cache is None:
            from mind_distill.metanet.features import FeatureCache, SentenceEncoder
            from mind_distill.student.packages import cache_folder

            self._cache = FeatureCache(SentenceEncoder(self.source), cache_folder() / "features.sqlite")
        with self.face.track("Embedding texts", len(texts)) as advance:
            found: np.ndarray = self._cache.embed(list(texts), advance).numpy()
        return found

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=1, ensure_ascii=True, allow_nan=False, default=lambda number: number.item()) + "\n"
