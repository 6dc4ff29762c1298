"""Section 3.2 in numbers: do clusters agree with perspectives or with subjects, and how well are these told apart?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from mind_distill.config import Settings
from mind_distill.errors import UserError
from mind_distill.latent.agreement import agreement
from mind_distill.latent.mixture import Floats, Integers
from mind_distill.latent.separation import correct_on_held_out, distance_ratio, silhouettes

CONFIDENCE = (2.5, 97.5)  # percentiles of the interval


class GeometrySettings(Settings):
    """How often and on how many points; the rest follows from the points."""

    draws: int = Field(200, ge=1)
    """Bootstrap resamples of the problems, and permutations of the labels."""
    folds: int = Field(5, ge=2)
    """Of problems, for the linear probe."""
    sample: int = Field(4000, ge=2)
    """Most points of the silhouette, whose cost grows with the square."""


class Points(NamedTuple):
    """n points: place [n, L], component of the mixture, and the numbers of perspective (or model), problem and subject."""

    z: Floats
    component: Integers
    perspective: Integers
    problem: Integers
    subject: Integers  # one for each problem

    def take(self, rows: Integers) -> Points:
        """Some of the points."""
        z, component, perspective, problem, subject = self
        return Points(z[rows], component[rows], perspective[rows], problem[rows], subject[rows])


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % bootstrap interval over problems, and what chance gives: mean, 95th percentile, p."""

    name: str
    label: str
    value: float
    low: float
    high: float
    null: float | None = None
    null_high: float | None = None
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(points: Points, settings: GeometrySettings, seed: int) -> list[Measure]:
    """Every measure of a space against perspective, then against subject, which is the honest control.

    Chance: perspectives are permuted within each problem, subjects over whole problems. Intervals resample problems, given
    the encoder and the mixture; they are centred on the value, since a problem drawn twice agrees with itself.
    """
    check(points)
    rng = np.random.default_rng(seed)
    found = []
    for kind, labels in (("perspective", points.perspective), ("subject", points.subject)):
        if len(np.unique(labels)) < 2:
            continue  # nothing to agree with
        shuffled = _within_problems if kind == "perspective" else _over_problems
        permuted = list(shuffled(labels, points.problem, settings.draws, rng))
        found += _agreements(kind, points, labels, permuted, settings, rng)
        found += _separations(kind, points, labels, permuted, settings, rng)
    return found


def check(points: Points) -> None:
    """Refuse points of which nothing can be measured."""
    if len(np.unique(points.problem)) < 5:
        raise UserError(
            f"The points come from {len(np.unique(points.problem))} problems; at least 5 are needed for folds and intervals."
        )
    if not np.isfinite(points.z).all():
        raise UserError(
            "Some places in z are not finite; look for states that are not finite, and fit the encoder again."
        )


def centroid_distances(z: Floats, perspective: Integers) -> Floats:
    """Euclidean distances [K, K] between the mean places of the perspectives."""
    means = np.stack([z[perspective == k].mean(0) for k in np.unique(perspective)])
    return np.asarray(np.linalg.norm(means[:, None] - means[None], axis=-1))


def _agreements(
    kind: str, points: Points, labels: Integers, permuted: list[Integers], settings: GeometrySettings, rng: Rng
) -> list[Measure]:
    """Of the mixture's components with the labels."""
    value = agreement(points.component, labels)
    chance = [agreement(points.component, other) for other in permuted]
    again = [agreement(points.component[rows], labels[rows]) for rows in resamples(points.problem, settings.draws, rng)]
    names = {"ari": "Adjusted Rand index", "nmi": "Normalised mutual information (V-measure)"}
    names |= {"ami": "Adjusted mutual information"}
    return [
        told(
            f"{name}_{kind}",
            f"{label}, components and {kind}",
            float(getattr(value, name)),
            [getattr(a, name) for a in again],
            [getattr(c, name) for c in chance],
        )
        for name, label in names.items()
    ]


def _separations(
    kind: str, points: Points, labels: Integers, permuted: list[Integers], settings: GeometrySettings, rng: Rng
) -> list[Measure]:
    """Of the labels' points in z: silhouette, linear probe on held-out problems, distance of centroids."""
    some = np.sort(rng.permutation(len(points.z))[: settings.sample])
    width = silhouettes(points.z[some], [other[some] for other in (labels, *permuted)])
    fold = folds(points.problem, settings.folds, rng)
    right = correct_on_held_out(points.z, [labels, *permuted], fold)
    found = [
        _mean_of_points(f"silhouette_{kind}", f"Silhouette by {kind}", width, points.problem[some], settings, rng),
        _mean_of_points(
            f"probe_{kind}", f"Linear probe for {kind}, held-out problems", right, points.problem, settings, rng
        ),
    ]
    if kind == "perspective":
        ratio = distance_ratio(points.z, labels)
        again = [distance_ratio(points.z[r], labels[r]) for r in resamples(points.problem, settings.draws, rng)]
        chance = [distance_ratio(points.z, other) for other in permuted]
        found.append(
            told("distance_perspective", "Distance of centroids beside the spread about them", ratio, again, chance)
        )
    return found


def _mean_of_points(
    name: str, label: str, values: Floats, problems: Integers, settings: GeometrySettings, rng: Rng
) -> Measure:
    """A measure that is a mean over points; values [1 + draws, n], those of the true labels first."""
    again = problem_bootstrap(values[0][:, None], problems, settings.draws, rng)[:, 0]
    return told(name, label, float(values[0].mean()), list(again), list(values[1:].mean(1)))


Rng = np.random.Generator


def told(name: str, label: str, value: float, again: list[float], chance: list[float] | None = None) -> Measure:
    """A measure from its value, its bootstrap replicates and its values under chance."""
    spread = np.asarray(again) - np.mean(again)
    low, high = (value + float(np.percentile(spread, at)) for at in CONFIDENCE)
    if not chance:
        return Measure(name, label, value, low, high)
    reached = int(np.sum(np.asarray(chance) >= value - 1e-12))
    return Measure(
        name,
        label,
        value,
        low,
        high,
        float(np.mean(chance)),
        float(np.percentile(chance, 95)),
        (1 + reached) / (1 + len(chance)),
    )


def resamples(problems: Integers, draws: int, rng: Rng) -> Iterator[Integers]:
    """Rows of bootstrap samples that draw whole problems."""
    order, bounds = _by_problem(problems)
    count = len(bounds) - 1
    for _ in range(draws):
        drawn = rng.integers(count, size=count)
        yield np.concatenate([order[bounds[p] : bounds[p + 1]] for p in drawn])


def problem_bootstrap(values: Floats, problems: Integers, draws: int, rng: Rng) -> Floats:
    """Means [draws, columns] of values [n, columns] over bootstrap samples of whole problems."""
    _, place, counts = np.unique(problems, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(place, weights=column) for column in values.T.astype(np.float64)], axis=1)
    times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws)
    return np.asarray(times @ sums / (times @ counts)[:, None])


def folds(problems: Integers, count: int, rng: Rng) -> Integers:
    """The fold of each point; all points of a problem share one."""
    numbers, place = np.unique(problems, return_inverse=True)
    return (rng.permutation(len(numbers)) % min(count, len(numbers)))[place]


def _by_problem(problems: Integers) -> tuple[Integers, Integers]:
    order = np.argsort(problems, kind="stable")
    ordered = problems[order]
    return order, np.r_[0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, len(order)]


def _within_problems(labels: Integers, problems: Integers, draws: int, rng: Rng) -> Iterator[Integers]:
    """Labels permuted among the points of each problem."""
    order = np.argsort(problems, kind="stable")
    for _ in range(draws):
        mixed = np.empty_like(labels)
        mixed[order] = labels[np.lexsort((rng.random(len(labels)), problems))]
        yield mixed


def _over_problems(labels: Integers, problems: Integers, draws: int, rng: Rng) -> Iterator[Integers]:
    """Labels, of which each problem has one, permuted over the problems."""
    _, first, place = np.unique(problems, return_index=True, return_inverse=True)
    for _ in range(draws):
        yield labels[first][rng.permutation(len(first))][place]
