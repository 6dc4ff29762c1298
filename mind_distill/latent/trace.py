"""What a training run wrote down of its visits, as arrays: what the student lost on every path, and what MetaNet made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mind_distill.corpus.perspectives import Perspective
from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.records import Lesson
from mind_distill.runs import Run

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
FEWEST = 8  # problems and visits below which nothing can be said
THIRDS = ("first third", "second third", "last third")


@dataclass(frozen=True)
class Trace:
    """The visits of one run in their order. V visits, P problems, K perspectives; what was not read is NaN.

    `lessons` are the P problems in order of id, `problem` [V] says which of them a visit read.
    """

    run: str
    settings: dict[str, Any]
    metrics: list[dict[str, Any]]
    lessons: tuple[Lesson, ...]
    perspectives: tuple[Perspective, ...]
    same_corpus: bool
    step: NDArray[np.int64]  # [V]
    problem: NDArray[np.int64]  # [V]
    nll: Floats  # [V, K]
    alpha: Floats  # [V, K]
    score: Floats | None  # [V, K]
    valid: Flags  # [P, K]

    @property
    def method(self) -> str:
        return method_of(self.settings)

    @property
    def third(self) -> NDArray[np.int64]:
        """0, 1 or 2 for each visit: the third of the steps that it fell into."""
        first, last = int(self.step.min()), int(self.step.max())
        return np.minimum(3 * (self.step - first) // (last - first + 1), 2)

    def labels(self, by: str) -> list[str | None]:
        """Subject or level of each problem."""
        values = [getattr(lesson.problem, by) for lesson in self.lessons]
        return [None if value is None else str(value).replace("_", " ") for value in values]

    def per_problem(self, values: Floats, only: Flags | None = None) -> Floats:
        """Mean of [V, K] values over each problem's visits: [P, K], NaN where there are none."""
        kept = np.isfinite(values) if only is None else np.isfinite(values) & only[:, None]
        total, count = (np.zeros(self.valid.shape) for _ in range(2))
        np.add.at(total, self.problem, np.where(kept, values, 0.0))
        np.add.at(count, self.problem, kept)
        return np.asarray(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))


def method_of(settings: dict[str, Any]) -> str:
    """The method's name in resolved settings, or nothing."""
    section = settings.get("method")
    return str(section.get("name", "")) if isinstance(section, dict) else ""


def read_trace(folder: Path) -> Trace:
    """The trace of a run of any method that visits K perspectives; a UserError says what it lacks."""
    run = Run.load(folder)
    settings = run.settings()
    rows = [row for row in run.lines("visits.jsonl") if isinstance(row, dict)]
    if not rows:
        raise UserError(f"{folder} holds no visit (visits.jsonl): train it first, or name another run.")
    corpus = _corpus(folder, settings)
    lessons = {lesson.problem.id: lesson for lesson in corpus}
    seen = sorted({str(row.get("id")) for row in rows})
    gone = [id_ for id_ in seen if id_ not in lessons]
    if gone:
        raise UserError(
            f"{folder}: problem '{gone[0]}' was visited, but the corpus '{settings['corpus']['source']}' no longer holds it "
            f"({len(gone)} such in all); bring back the corpus that was trained on."
        )
    nll, alpha, score = _table(folder, rows, len(corpus.perspectives))
    if len(seen) < FEWEST:
        raise UserError(f"{folder}: {len(seen)} problems were visited; at least {FEWEST} are needed to compare.")
    visited = corpus.without(lessons.keys() - set(seen))
    place = {id_: i for i, id_ in enumerate(seen)}
    keys = [perspective.key for perspective in corpus.perspectives]
    problem = np.array([place[str(row["id"])] for row in rows])
    valid = np.array([[key in lessons[id_].by_perspective() for key in keys] for id_ in seen])
    there = valid[problem]
    return Trace(
        run=folder.resolve().name,
        settings=settings,
        metrics=[row for row in run.metrics() if isinstance(row, dict)],
        lessons=tuple(lessons[id_] for id_ in seen),
        perspectives=corpus.perspectives,
        same_corpus=visited.content_hash() == settings["corpus"].get("hash"),
        step=np.array([int(row["step"]) for row in rows]),
        problem=problem,
        valid=valid,
        nll=np.where(there, nll, np.nan),
        alpha=np.where(there, alpha, np.nan),
        score=np.where(there, score, np.nan) if np.isfinite(score).all() else None,
    )


def _corpus(folder: Path, settings: dict[str, Any]) -> Corpus:
    """The corpus that the run names, with the perspectives it learned from."""
    section = settings.get("corpus")
    if not isinstance(section, dict) or "source" not in section:
        raise UserError(f"{folder}: its settings.yaml names no corpus (corpus.source).")
    corpus = Corpus.load(section["source"])
    return corpus.only(section["perspectives"]) if section.get("perspectives") is not None else corpus


def _table(folder: Path, rows: list[dict[str, Any]], slots: int) -> tuple[Floats, Floats, Floats]:
    """Losses, weights and scores of the visits [V, K]; a UserError names the visit that holds something else."""
    columns: dict[str, list[Any]] = {"nll": [], "alpha": [], "score": [], "ran": []}
    for place, row in enumerate(rows, 1):
        for key, column in columns.items():
            given = row.get(key)
            if key == "score" and given is None:
                given = [np.nan] * slots
            whole = isinstance(given, list) and len(given) == slots and all(isinstance(x, int | float) for x in given)
            if not whole or not isinstance(row.get("step"), int):
                raise UserError(
                    f"{folder}, visits.jsonl, visit {place}: '{key}' must hold {slots} numbers, one a perspective of the corpus."
                )
            column.append(given)
    nll, alpha, score = (np.array(columns[key], dtype=float) for key in ("nll", "alpha", "score"))
    nll[~np.array(columns["ran"], dtype=bool)] = np.nan
    return nll, alpha, score
