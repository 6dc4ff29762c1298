"""Runs written by hand whose preferences are known, for tests of the probe: losses by rule, weights by the real MetaNet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mind_distill.corpus.perspectives import STANDARD
from mind_distill.corpus.read import Corpus
from mind_distill.latent.preference import _silent
from mind_distill.latent.retraining import Retraining
from mind_distill.latent.trace import read_trace
from mind_distill.records import Lesson
from tests.conftest import make_lesson
from tests.report.toy_run import write_lines

K, TAU = 8, 0.25
SUBJECTS = ("algebra", "geometry", "number_theory")
METHOD: dict[str, Any] = {
    "name": "mind",
    "metanet": {"width": 16, "hidden": 32, "attention_heads": 2, "head_hidden": 8},
    "warm_up": {"epochs": 25, "learning_rate": 1e-2, "batch": 24},
    "meta_learning_rate": 3e-3,
    "meta_every": 1,
    "tau": TAU,
}


def lessons(count: int = 24) -> list[Lesson]:
    """Lessons of three subjects whose questions say which, in letters that all fall into one place of the toy encoder's."""
    found = []
    for n in range(1, count + 1):
        lesson, subject = make_lesson(n), SUBJECTS[n % 3]
        letters = "".join(chr(97 + (5 * (n % 3) - i) % 16) for i in range(120))
        question = f"{letters} {lesson.problem.question}"
        problem = replace(lesson.problem, question=question, subject=subject, level=1 + n % 2)
        found.append(replace(lesson, problem=problem))
    return found


def effects(seed: int, size: float) -> np.ndarray:
    """[3, K]: what each subject adds to the loss of each perspective, centred."""
    table = np.random.default_rng(seed).normal(0, size, (len(SUBJECTS), K))
    return np.asarray(table - table.mean(1, keepdims=True))


def write_world(
    folder: Path,
    base: np.ndarray,
    by_subject: np.ndarray | None = None,
    method: dict[str, Any] = METHOD,
    visits: int = 3,
    noise: float = 0.05,
    count: int = 24,
    seed: int = 0,
    a_step: int = 12,
) -> Path:
    """A run over the lessons, `a_step` a step. Loss = base [K] + the subject's [3, K] + noise, less 0.1 a visit; a run of method
    mind gets its scores and weights from the real MetaNet, trained on those losses as `mind train` would."""
    rng = np.random.default_rng(seed)
    corpus = Corpus(lessons(count), STANDARD, "world")
    source = folder.parent / f"{folder.name}-corpus"
    corpus.save(source)
    settings = {
        "student": "toy",
        "encoder": "hash",
        "answer_format": "sentence",
        "corpus": {"source": str(source), "hash": corpus.content_hash()},
        "method": method,
        "training": {"seed": 0, "learning_rate": 1e-3},
    }
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    (folder / "run.json").write_text(json.dumps({"format": 1, "job": "train", "status": "finished"}))
    rows, place = [], 0
    for visit in range(visits):
        for i in rng.permutation(count):
            problem = corpus[int(i)].problem
            loss = 3 + base - 0.1 * visit + rng.normal(0, noise, K)
            if by_subject is not None:
                loss = loss + by_subject[SUBJECTS.index(str(problem.subject))]
            row = {"step": 1 + place // a_step, "id": problem.id, "nll": loss.round(6).tolist(), "score": None}
            rows.append(row | {"alpha": [1 / K] * K, "selected": [True] * K, "ran": [True] * K})
            place += 1
    metrics = [
        {"step": s, "sft": 3 - s / 50, "meta": 0.1 / s, "tau": TAU}
        for s in range(1, max(row["step"] for row in rows) + 1)
    ]
    write_lines(folder / "metrics.jsonl", metrics)
    write_lines(folder / "visits.jsonl", rows)
    if method["name"] == "mind":
        scores, alpha = Retraining(read_trace(folder), TAU, _silent).alpha("none", 0)
        given = [
            row | {"score": s.tolist(), "alpha": a.tolist()} for row, s, a in zip(rows, scores, alpha, strict=True)
        ]
        write_lines(folder / "visits.jsonl", given)
    return folder
