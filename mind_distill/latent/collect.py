"""Every model answers every problem and its states are stored: while it reads its own rationale, and while specialists and
seeds all read the same neutral one (section 3.2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from mind_distill.errors import UserError
from mind_distill.evaluation.ask import Ask, Candidate, about, answer, prepare
from mind_distill.generation.local import LocalGenerator
from mind_distill.latent.models import Model, Roster
from mind_distill.latent.read import Encoded, Text, batches, encode, rationale_of, read_batch, to_half
from mind_distill.latent.states import Point, Store
from mind_distill.latent.study import LatentSettings
from mind_distill.records import Problem
from mind_distill.runs import publish
from mind_distill.student.identity import identity_of
from mind_distill.student.load import Student, find_student, open_student, resolve_precision
from mind_distill.tasks.base import find_benchmark, load_benchmark
from mind_distill.tasks.benchmark import Benchmark
from mind_distill.terminal import Face

LEAST = 10  # problems; with fewer neither folds nor resamples of problems mean anything
ROSTER, FORMAT = "models.json", 1
OWN, SAME = "own", "same-text"  # the two stores


class Questions(NamedTuple):
    """A benchmark as this study asks it, and its problems."""

    benchmark: Benchmark
    problems: list[Problem]


def load_questions(study: LatentSettings, where: str) -> list[Questions]:
    """The problems that every model answers. A UserError for a benchmark that is not known, or too few problems in all."""
    found = []
    for name, limit in study.problems.items():
        benchmark = find_benchmark(name)
        if study.tokens is not None:
            benchmark = replace(benchmark, max_new_tokens=study.tokens)
        found.append(Questions(benchmark, load_benchmark(name)[:limit]))
    count = sum(len(one.problems) for one in found)
    if count < LEAST:
        raise UserError(
            f"{where}: problems: {count} in all; a study needs at least {LEAST}, and 50 or more to find anything but the "
            "largest differences. Raise the limit or name another benchmark."
        )
    return found


def collect(study: LatentSettings, roster: Roster, questions: Sequence[Questions], output: Path, face: Face) -> None:
    """Store every model's texts and states; what is stored already is kept."""
    Collection(study, roster, questions, output, face).run()
    values = {
        "format": FORMAT,
        "perspectives": [asdict(one) for one in roster.perspectives],
        "base": roster.base._asdict(),
        "models": [model._asdict() for model in roster.models],
        "control": list(roster.control),
    }
    publish(output / ROSTER, json.dumps(values, indent=1) + "\n")


class Collection:
    """Fills the two stores of `states/`; what is there already is neither asked nor read again."""

    def __init__(self, study: LatentSettings, roster: Roster, questions: Sequence[Questions], output: Path, face: Face):
        self.study, self.roster, self.questions, self.output, self.face = study, roster, questions, output, face
        self.stores = {name: Store(output / "states", name, study.pool) for name in (OWN, SAME)}
        self._neutral: list[Text] | None = None
        self._asked = json.dumps(
            [
                [q.benchmark.name, q.benchmark.cue, q.benchmark.max_new_tokens, [asdict(p) for p in q.problems]]
                for q in questions
            ]
        )
        form = find_student(roster.models[0].source)
        self._form, self._precision = form.answer_format, form.precision
        self._base = self._identity(roster.base)

    def run(self) -> None:
        """Models in their order: each is loaded once, and only if something of it is missing."""
        for model in self.roster.models:
            marks = self._marks(model, self._identity(model))
            missing = [name for name, mark in marks.items() if not self.stores[name].holds(model.name, mark)]
            if missing:
                self._fill(model, missing, marks)
        for store in self.stores.values():
            store.close()

    def _marks(self, model: Model, identity: str) -> dict[str, str]:
        """By store, what the model's rows there depend on."""
        own = [identity, self._asked, self.study.batch]
        marks = {OWN: own}
        if model.role != "compare":
            marks[SAME] = [*own, self._base]
        return {name: hashlib.sha256(json.dumps(values).encode()).hexdigest() for name, values in marks.items()}

    def _identity(self, model: Model) -> str:
        found = find_student(model.source)
        precision = resolve_precision(found.precision or self._precision or "auto")
        # Two spaces, for states that are stored already hold this mark.
        return f"{identity_of(found)}  {precision} {found.answer_format or self._form} {found.task}"

    def _fill(self, model: Model, missing: Sequence[str], marks: dict[str, str]) -> None:
        neutral = self._neutral_texts() if SAME in missing else []  # the base is loaded and let go before the model is
        student, identity = self._open(model)
        if OWN in missing:
            self._read(OWN, model, student, self._answers(model, student, identity), marks[OWN])
        if SAME in missing:
            self._read(SAME, model, student, neutral, marks[SAME])

    def _open(self, model: Model) -> tuple[Student, str]:
        found = find_student(model.source)
        return open_student(
            model.source, found.precision or self._precision, self.study.threads, found.answer_format or self._form
        )

    def _neutral_texts(self) -> list[Text]:
        """What the untouched student answers: words that no specialist has made its own."""
        if self._neutral is None:
            student, identity = self._open(self.roster.base)
            self._neutral = self._answers(self.roster.base, student, identity)
        return self._neutral

    def _answers(self, model: Model, student: Student, identity: str) -> list[Text]:
        """The model's rationales, answers without a word left out. A UserError where hardly any are left."""
        folder = self.output / "texts" / file_name(model.name)
        folder.mkdir(parents=True, exist_ok=True)
        generator = LocalGenerator(student.model, student.tokenizer, self.study.batch)
        told = about("transformers", student.layout)
        candidate = Candidate(generator, student.layout.encode_prompt, identity, told, student.answer_as)
        texts: list[Text] = []
        for benchmark, problems in self.questions:
            student.answer_as(benchmark.name)
            inquiry = prepare(candidate, benchmark, problems, Ask(batch=self.study.batch))
            track = _named(self.face, model.name)
            given = answer(candidate, inquiry, folder / f"{benchmark.name}.jsonl", track).by_key
            texts += [Text(p, benchmark.name, rationale_of(given[p.id].text)) for p in problems]
        texts = [text for text in texts if text.rationale]
        if len(texts) < LEAST:
            asked = sum(len(one.problems) for one in self.questions)
            raise UserError(
                f"{model.name} wrote a rationale to {len(texts)} of {asked} problems; at least {LEAST} are needed. Ask more "
                "problems, or leave this run out."
            )
        return texts

    def _read(self, name: str, model: Model, student: Student, texts: Sequence[Text], mark: str) -> None:
        """The model's segment of a store, batch by batch; whole batches of an earlier attempt are kept."""
        pieces: list[list[Encoded]] = []
        for benchmark, _ in self.questions:
            here = [text for text in texts if text.benchmark == benchmark.name]
            if here:
                pieces += batches(encode(student, here, self.study.pool, benchmark.cue), self.study.batch)
        store, sizes = self.stores[name], [sum(len(one.spans) for one in piece) for piece in pieces]
        width = int(student.model.get_input_embeddings().weight.shape[1])
        kept = store.begin(model.name, mark, width, sizes)
        what = "own texts" if name == OWN else "the same texts"
        with self.face.track(f"{model.name} reads {what}", len(pieces)) as advance:
            advance(kept)
            for piece in pieces[kept:]:
                student.answer_as(piece[0].text.benchmark)
                points = [_point(model, one, step) for one in piece for step in range(len(one.spans))]
                rows = to_half(read_batch(student, piece), model.name, [point.id for point in points])
                store.add(rows, points)
                advance(1)
        store.end(sum(sizes))


def _point(model: Model, one: Encoded, step: int) -> Point:
    problem = one.text.problem
    subject = problem.subject or ""
    part = one.parts[step]
    return Point(model.name, model.perspective, problem.id, subject, one.text.benchmark, part, step, problem.question)


def file_name(model: str) -> str:
    """A model's name as part of a file's."""
    return model.replace(":", "-")


def _named(face: Face, model: str) -> Callable[[str, int], Any]:
    return lambda description, total: face.track(f"{model}: {description[0].lower()}{description[1:]}", total)
