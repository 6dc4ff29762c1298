"""A run directory written by hand, as training and evaluation would leave it, for tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from mind_distill.corpus.read import Corpus
from mind_distill.evaluation.scoring import score
from mind_distill.records import Prediction, Problem, to_json
from mind_distill.runs import Run

K = 8


def write_run(
    folder: Path, corpus: Corpus, steps: int = 6, method: str = "mind", labels: tuple[str, ...] = ("before", "after")
) -> Run:
    """A finished run on the corpus, saved beside it: a problem a step, and ten held-out questions a label."""
    folder.mkdir(parents=True)
    source = folder.parent / "corpus"
    corpus.save(source)
    settings = {
        "student": "embedded",
        "corpus": {"source": str(source), "probe": 2},
        "method": {"name": method},
        "training": {"seed": 3, "epochs": 1, "problems_per_step": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    info = {
        "format": 1,
        "status": "finished",
        "command": "mind train recipe.yaml",
        "seed": 3,
        "versions": {"python": "3.11"},
        "hashes": {"corpus": corpus.content_hash()},
        "hardware": {"processor": "Toy", "cores": 2, "system": "Linux"},
        "start": "2026-01-01T00:00:00+00:00",
        "seconds": 75.0,
        "resumed": 0,
    }
    (folder / "run.json").write_text(json.dumps(info))
    ids = [lesson.problem.id for lesson in corpus]
    metrics, visits = zip(*(_step(step, ids[step % len(ids)], method) for step in range(1, steps + 1)), strict=True)
    write_lines(folder / "metrics.jsonl", metrics)
    write_lines(folder / "visits.jsonl", visits)
    write_lines(
        folder / "probe.jsonl", [{"step": s, "lessons": 2, "nll": [2.0 - s / (2 * steps)] * K} for s in (0, steps)]
    )
    timing = [{"step": s, "seconds": 2.0, "tokens": 300, "rss": 2048} for s in range(1, steps + 1)]
    write_lines(folder / "timing.jsonl", timing)
    for label in labels:
        write_evaluation(folder, label, right=2 if label == "before" else 9)
    return Run(folder)


def _step(step: int, id_: str, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    alpha = [0.5, 0.25, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0] if method == "mind" else [1 / K] * K
    line: dict[str, Any] = {"step": step, "epoch": 1, "loss": 2.0 / step, "sft": 2.0 / step, "alpha": alpha}
    line |= {"selected": 3.0, "grad_norm": 0.5, "lr": 5e-4, "fallbacks": 0}
    visit: dict[str, Any] = {"step": step, "id": id_, "nll": [1.0 + k / 10 for k in range(K)], "score": None}
    visit |= {"alpha": alpha, "selected": [a > 0 for a in alpha], "ran": [True] * K}
    if method == "mind":
        line |= {"consistency": 0.01, "meta": 0.02, "meta_lr": 5e-5, "rank": 0.9, "jsd": 0.1, "answer_probability": 0.4}
        visit |= {"score": [0.5 - k / 10 for k in range(K)], "jsd": 0.1, "answer_probability": 0.4}
    return line, visit


def write_evaluation(folder: Path, label: str, right: int, n: int = 10, text: str = "The answer is 4.") -> None:
    """An evaluation whose first `right` answers are right."""
    problems = [Problem(f"q{i}", f"What is {i} and 2?", str(i + 2), "number", subject="algebra") for i in range(n)]
    predictions = [
        Prediction(p.id, "toy", p.question, p.answer, text, "4", i < right, "equal", False, 5, False, True)
        for i, p in enumerate(problems)
    ]
    target = folder / "evaluations" / label
    target.mkdir(parents=True)
    (target / "toy.jsonl").write_text("".join(to_json(p) + "\n" for p in predictions))
    row = json.loads(to_json(score("toy", problems, predictions)))
    (target / "scores.json").write_text(json.dumps([row]))


def write_lines(file: Path, rows: Any) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_map(file: Path, **changes: Any) -> None:
    """A map of four points: two labels, two of the corpus's problems, the last point of another run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    points = [
        {"x": x, "y": y, "label": label, "id": id_, "question": f"Asked: {id_}?", "text": f"Text of {id_}", "run": run}
        for x, y, label, id_, run in (
            (0.0, 0.0, "Planning", "toy-001", "specialist"),
            (1.0, 0.5, "Planning", "toy-002", "specialist"),
            (4.0, 1.0, "Analogy", "toy-001", "specialist"),
            (2.0, 2.0, "Analogy", "toy-003", "student"),
        )
    ]
    file.write_text(json.dumps({"format": 1, "title": "A map", "note": "By hand.", "points": points, **changes}))
