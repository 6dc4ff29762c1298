"""The spaces of a study: states or sentence embeddings, each through encoder and mixture, and what is measured there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mind_distill.corpus.read import Corpus
from mind_distill.latent.encoder import Encoder, EncoderSettings, fit_encoder
from mind_distill.latent.geometry import Measure, Points, centroid_distances
from mind_distill.latent.reduction import Reduction
from mind_distill.latent.states import Point, States
from mind_distill.runs import publish

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
Embed = Callable[[Sequence[str]], np.ndarray]

FEWEST = 5  # problems of a subject
TITLES = {
    "states": "Specialists, own rationales",
    "pca": "Own rationales, by principal components",
    "text": "Own rationales, by their words (embeddings)",
    "same-text": "Specialists, the same neutral texts",
    "same-text-pca": "Neutral texts, by principal components",
    "seed": "Seeds, own rationales, by principal components",
    "seed-same-text": "Seeds, neutral texts, by principal components",
    "teacher": "Teacher's rationales (sentence embeddings)",
    "teacher-centred": "Teacher's rationales, each problem's mean removed",
}


class Space(NamedTuple):
    """Points in a latent space, and how they came there. `names` are what the numbers in `numbers.perspective` stand for."""

    key: str
    names: tuple[str, ...]
    points: list[Point]
    rows: Floats  # before the encoder, [n, d]
    encoder: Encoder
    numbers: Points
    problems: dict[tuple[str, str], int]  # (benchmark, problem id) to number

    @property
    def z(self) -> Floats:
        return self.numbers.z

    def named(self) -> list[str]:
        """What each point is coloured by."""
        return [self.names[k] for k in self.numbers.perspective]


class Reading(NamedTuple):
    """Rows that are to become a space, and the key of each point's group: its perspective, or a seed's model."""

    key: str
    names: dict[str, str]  # key of a group to its name
    states: States
    group: Callable[[Point], str]
    changes: dict[str, Any]  # of the encoder's settings

    @property
    def of_teacher(self) -> bool:
        """Whether it stands beside the study (Figure 4c): of the teacher's problems, and the study goes on without it."""
        return self.key.startswith("teacher")


def number_problems(points: Sequence[Point]) -> dict[tuple[str, str], int]:
    """A number for each problem, the same in every space that is made of these points."""
    return {problem: n for n, problem in enumerate(sorted({(p.benchmark, p.id) for p in points}))}


def subjects_of(points: Sequence[Point], rare: str | None = None) -> list[str]:
    """The subject of each point. One that fewer than FEWEST problems of its benchmark have says nothing by itself: it is
    `rare` then, by default the benchmark's name."""
    had: dict[tuple[str, str], set[str]] = {}
    for point in points:
        had.setdefault((point.benchmark, point.subject), set()).add(point.id)
    kept = {key for key, seen in had.items() if key[1] and len(seen) >= FEWEST}
    return [p.subject if (p.benchmark, p.subject) in kept else p.benchmark if rare is None else rare for p in points]


def fit_space(
    reading: Reading,
    numbering: dict[tuple[str, str], int],
    settings: EncoderSettings,
    seed: int,
    reduction: Reduction | None = None,
) -> Space:
    """Encoder and mixture fitted on the problems to which every group has a point; their labels are not shown to it.

    `reduction`: that of another space of the same points, settings and seed, which is then not fitted again.
    """
    keys = list(reading.names)
    groups = [reading.group(point) for point in reading.states.points]
    had: dict[tuple[str, str], set[str]] = {}
    for point, group in zip(reading.states.points, groups, strict=True):
        had.setdefault((point.benchmark, point.id), set()).add(group)
    problems = {problem: numbering[problem] for problem, seen in had.items() if len(seen) == len(keys)}
    places = [i for i, p in enumerate(reading.states.points) if (p.benchmark, p.id) in problems]
    points = [reading.states.points[i] for i in places]
    rows = reading.states.rows if len(places) == len(groups) else reading.states.rows[places]
    numbers = np.array([problems[p.benchmark, p.id] for p in points], dtype=np.int64)
    encoder = fit_encoder(rows, numbers, settings.model_copy(update=reading.changes), seed, reduction)
    z = encoder.project(rows, numbers)
    subjects = subjects_of(points)
    order = {name: n for n, name in enumerate(sorted(set(subjects)))}
    found = Points(
        z,
        encoder.mixture.assign(z),
        np.array([keys.index(groups[i]) for i in places]),
        numbers,
        np.array([order[name] for name in subjects]),
    )
    return Space(reading.key, tuple(reading.names.values()), points, rows, encoder, found, problems)


def describe(space: Space, measures: Sequence[Measure]) -> dict[str, Any]:
    """What geometry.json says of a space."""
    encoder = space.encoder
    return {
        "title": TITLES.get(space.key, space.key),
        "points": len(space.points),
        "problems": len(space.problems),
        "models": list(space.names),
        "active": len(encoder.mixture.active(space.z)),
        "converged": encoder.converged,
        "because": encoder.because,
        "fitted": encoder.likelihood.fitted,
        "held_out": encoder.likelihood.held_out,
        "one_gaussian": encoder.likelihood.one_gaussian,
        "distances": centroid_distances(space.z, space.numbers.perspective).tolist(),
        "measures": [one.to_json() for one in measures],
    }


def save_space(space: Space, folder: Path) -> None:
    """Encoder and mixture, and of each point z, component and responsibilities, in the order of `points.jsonl`."""
    import json
    from dataclasses import asdict

    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    space.encoder.save(folder)
    arrays = {
        "z": np.ascontiguousarray(space.z, dtype=np.float32),
        "component": space.numbers.component.astype(np.int32),
        "responsibilities": np.ascontiguousarray(space.encoder.mixture.responsibilities(space.z), dtype=np.float32),
    }
    publish(folder / "points.safetensors", save(arrays))
    lines = (json.dumps(asdict(point), ensure_ascii=True) + "\n" for point in space.points)
    publish(folder / "points.jsonl", "".join(lines))


def teacher_states(corpus: Corpus, embed: Embed) -> States:
    """The accepted rationales of a corpus in sentence-embedding space (Figure 4c)."""
    points = [
        Point(
            "teacher",
            rationale.perspective,
            lesson.problem.id,
            lesson.problem.subject or "",
            corpus.name,
            rationale.body,
            question=lesson.problem.question,
        )
        for lesson in corpus
        for rationale in lesson.rationales
    ]
    return States(embed([point.text for point in points]), points)


def embedded(states: States, embed: Embed) -> States:
    """The same points by what their words say, instead of by what the model holds while it reads them."""
    return States(embed([point.text for point in states.points]), states.points)
