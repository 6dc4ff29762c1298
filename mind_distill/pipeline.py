"""The one place that runs several stages in a row: train from a recipe, `distill` from Python, and the quickstart."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mind_distill.config import merge, to_yaml
from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.processes import Processes
from mind_distill.records import Lesson, Score
from mind_distill.runs import Bystander, Run, RunDirectory, claim_output, read_settings
from mind_distill.terminal import Face, Plain, Quiet
from mind_distill.threads import stop_spinning

NO_TEMPLATE_WARNING = (
    "Warning: this model has no chat template. Each prompt is 'Question: ...', a line 'Answer:' and a line break, in training and "
    "evaluation alike; a model that was trained on another form scores lower for it."
)


class Lessons(NamedTuple):
    """Lessons to learn from, and lessons set aside for the probe."""

    train: Corpus
    probe: Sequence[Lesson]


def distill(
    student: str,
    corpus: Corpus,
    *,
    method: str | dict[str, Any] = "mind",
    output_dir: str | Path,
    resume: bool = False,
    **sections: Any,
) -> Run:
    """Distil the lessons into the student and return the finished run.

    `sections` are those of a recipe, for instance training={"epochs": 1, "learning_rate": 3e-4}. Raises UserError for a
    mistake in them, and Stopped where a run stops by itself; `resume=True` continues it.
    """
    own = {"name": method} if isinstance(method, str) else dict(method)
    values: dict[str, Any] = {"student": student, "corpus": {"source": corpus.name}, "method": own}
    values = merge(values, sections)
    train(values, Path(output_dir), Plain(), resume=resume, corpus=corpus)
    return Run.load(output_dir)


def evaluate(
    model: str | Path,
    benchmarks: Sequence[str],
    *,
    output_dir: str | Path,
    limit: int | None = None,
    face: Face | None = None,
    how: Any = None,
    answer_format: str | None = None,
    backend: Any = None,
    resume: bool = False,
    force: bool = False,
) -> list[Score]:
    """Answer the benchmarks with a model (hub id, folder, adapter, run directory or 'embedded') and return the scores.

    Predictions, scores.json and what says how was asked are written into `output_dir`. `how` is an evaluation.ask.Ask, for
    sampling and the like; `backend` an evaluation.backends.Vllm or Remote, None for transformers on this machine. Benchmarks
    that are finished there are refused, unless `resume` keeps them or `force` asks them again.
    """
    stop_spinning()
    from mind_distill.evaluation.ask import Ask
    from mind_distill.evaluation.run import evaluate_candidate, evaluate_student, finished, forget
    from mind_distill.tasks.base import find_benchmark

    folder, shown = Path(output_dir), face or Quiet()
    names = [find_benchmark(name).name for name in benchmarks]  # a wrong name is told before a model loads
    held = [name for name in finished(folder) if name in names]
    if held and not resume and not force:
        raise UserError(
            f"{folder} holds the answers to {', '.join(held)} already. Keep them with --resume, ask again with --force, or "
            "choose another --output."
        )
    if force:
        forget(folder, names)
    how = (how or Ask())._replace(keep=not force)
    how = how._replace(limit=limit) if limit is not None else how
    if backend is not None:
        return evaluate_candidate(
            backend.candidate(str(model), answer_format, how), benchmarks, folder, shown.track, how
        )
    student, identity = _frozen_student(str(model), precision=None, threads="auto", form=answer_format)
    if not student.tokenizer.chat_template:
        shown.say(NO_TEMPLATE_WARNING)
    return evaluate_student(student, benchmarks, folder, shown.track, how, identity)


def train(
    values: dict[str, Any],
    output: Path,
    face: Face,
    *,
    resume: bool = False,
    force: bool = False,
    corpus: Corpus | None = None,
) -> None:
    """Train what the recipe values say into `output`, then evaluate the benchmarks they name under the label `final`."""
    stop_spinning()
    from mind_distill.training.settings import resolve_recipe

    processes = Processes.join()
    face = face if processes.first else Quiet()
    recipe = resolve_recipe(values, "recipe")
    lessons = prepare_lessons(recipe, corpus)
    resolved = resolved_settings(recipe, lessons)
    going_on = processes.ask_first(lambda: claim_output(output, resume, resolved, force))
    kind = RunDirectory if processes.first else Bystander
    with kind(output, "train", recipe.training.seed, going_on) as directory:
        directory.write_settings(to_yaml(values), to_yaml(resolved))
        face.watch(directory.path, [perspective.name for perspective in lessons.train.perspectives])
        train_student(recipe, lessons, directory, face, going_on)
        processes.leave()
        if recipe.evaluation.benchmarks and processes.first:
            evaluate_run(directory, "final", recipe, face)


def diagnose(values: dict[str, Any], corpus: Corpus | None = None) -> Any:
    """What `mind doctor` says of the recipe values (training.doctor.Diagnosis)."""
    stop_spinning()
    from mind_distill.training.doctor import examine
    from mind_distill.training.settings import resolve_recipe

    recipe = resolve_recipe(values, "recipe")
    lessons = prepare_lessons(recipe, corpus)
    return examine(recipe, lessons.train, lessons.probe)


def train_student(recipe: Any, lessons: Lessons, directory: RunDirectory, face: Face, resume: bool) -> None:
    """The training stage, inside an open run directory; does nothing if the adapter is already there."""
    from mind_distill.methods.table import METHODS
    from mind_distill.training.run import is_finished, run_training

    if Processes.join().ask_first(lambda: is_finished(directory.path)):
        return
    if not METHODS[recipe.method["name"]].trains:
        directory.write_info(trains=False)  # the student stays as it is; there is nothing to save
        return
    if recipe.first:
        below = _train_first(recipe, lessons, directory, face, resume)
        recipe = recipe.model_copy(update={"student": str(below)})
    run_training(recipe, lessons.train, lessons.probe, directory, face, resume)
    gc.collect()  # the trained student sits in reference cycles; the evaluation that follows loads one of its own


def _train_first(recipe: Any, lessons: Lessons, directory: RunDirectory, face: Face, resume: bool) -> Path:
    """The stage before, as a run of its own inside the run: its folder. Finished, it is not trained again."""
    from mind_distill.training.settings import first_stage

    stage, inside = first_stage(recipe), directory.path / "first"
    settings = resolved_settings(stage, lessons)
    Processes.join().ask_first(lambda: _drop_if_other(inside, settings))
    with type(directory)(inside, "train", stage.training.seed, resume) as run:
        run.write_settings(to_yaml(recipe.first), to_yaml(settings))
        train_student(stage, lessons, run, face, resume)
    return inside


def _drop_if_other(stage: Path, settings: dict[str, Any]) -> None:
    """Delete a stage that was trained with other settings: the run was resumed by force."""
    if (stage / "settings.yaml").is_file() and read_settings(stage) != settings:
        shutil.rmtree(stage)


def evaluate_run(directory: RunDirectory, label: str, recipe: Any, face: Face, cue: str | None = None) -> list[Score]:
    """The evaluation stage on the run's student ('before*': its untouched base); finished ones are read back."""
    from mind_distill.evaluation.run import Ask, evaluate_student, finished, finished_scores
    from mind_distill.tasks.base import find_benchmark

    folder = directory.path / "evaluations" / label
    section = recipe.evaluation
    if set(finished(folder)) >= {find_benchmark(name).name for name in section.benchmarks}:
        return finished_scores(folder)
    source = recipe.student if label.startswith("before") else str(directory.path)
    student, identity = _frozen_student(source, recipe.training.precision, recipe.training.threads, recipe.form)
    scores = []
    for name in section.benchmarks:
        how = Ask(section.limit_of(name), section.batch, cue)
        scores += evaluate_student(student, [name], folder, face.track, how, identity)
    return scores


def _frozen_student(source: str, precision: Any, threads: Any, form: Any = None) -> tuple[Any, str]:
    """A student to ask, and what identifies its weights; torch is imported here and not before."""
    from mind_distill.student.load import open_student

    return open_student(source, precision, threads, form)


def ask(model: str, question: str, face: Face, max_new_tokens: int = 512) -> str:
    """The student's answer to one question, in the prompt it was trained with (an open answer is assumed to be `math`)."""
    stop_spinning()
    from mind_distill.generation.base import Generation
    from mind_distill.generation.local import LocalGenerator
    from mind_distill.records import Problem

    if not question.strip():
        raise UserError("The question is empty.")
    student, _ = _frozen_student(model, None, "auto")
    problem = Problem("asked", question, "?", "number" if any(c.isdigit() for c in question) else "math")
    found: list[Generation] = []
    generator = LocalGenerator(student.model, student.tokenizer, batch=1)
    generator.generate(
        [student.layout.encode_prompt(problem)], max_new_tokens, lambda _, generation: found.append(generation)
    )
    return found[0].text.strip()


def prepare_lessons(recipe: Any, corpus: Corpus | None) -> Lessons:
    """The recipe's lessons: slice, probe set aside first (so that `limit` does not change it), then the limit.

    A method that needs what they lack, or a benchmark that is not known, is refused here, before a model loads.
    """
    section = recipe.corpus
    whole = corpus if corpus is not None else Corpus.load(section.source)
    if section.perspectives is not None:
        whole = whole.only(section.perspectives)
    if section.slice:
        whole = whole.slice(section.slice)
    if section.probe >= len(whole):
        raise UserError(f"corpus.probe={section.probe} leaves nothing to learn from: there are {len(whole)} lessons.")
    probe: Sequence[Lesson] = list(whole.take(section.probe, recipe.training.seed + 1)) if section.probe else []
    rest = whole.without({lesson.problem.id for lesson in probe})
    train_on = rest.take(section.limit, recipe.training.seed) if section.limit else rest
    _refuse_empty([*train_on, *probe])
    _check_method(recipe, train_on, probe)
    return Lessons(train_on, probe)


def _refuse_empty(lessons: Sequence[Lesson]) -> None:
    empty = [r.id for lesson in lessons for r in lesson.rationales if not r.body.strip()]
    if empty:
        raise UserError(
            f"Rationale '{empty[0]}' says nothing before its closing statement ({len(empty)} such in all). Leave it out."
        )


def resolved_settings(recipe: Any, lessons: Lessons) -> dict[str, Any]:
    """What settings.yaml holds: every setting, and hashes, so that a resume on other lessons or weights is refused."""
    from mind_distill.student.identity import identity_of
    from mind_distill.student.load import find_student

    values: dict[str, Any] = recipe.model_dump(mode="json")
    values["corpus"]["hash"] = lessons.train.content_hash()
    values["corpus"]["probe_hash"] = Corpus(lessons.probe, lessons.train.perspectives, "probe").content_hash()
    values["student_hash"] = identity_of(find_student(recipe.student))
    return values


def _check_method(recipe: Any, lessons: Corpus, probe: Sequence[Lesson]) -> None:
    from mind_distill.methods.table import make_method
    from mind_distill.tasks.base import find_benchmark
    from mind_distill.training.run import setting_of
    from mind_distill.training.settings import first_stage

    for name in recipe.evaluation.benchmarks:
        find_benchmark(name)
    make_method(recipe.method, setting_of(recipe, lessons)).check([*lessons, *probe])
    if recipe.first:
        stage = first_stage(recipe)
        make_method(stage.method, setting_of(stage, lessons)).check([*lessons, *probe])
