"""Section 4.3, Figure 5: towards which of the specialists' ways of thinking does a student's own answer lean?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from mind_distill.latent.geometry import CONFIDENCE, Measure, Rng, problem_bootstrap
from mind_distill.latent.mixture import Floats, Integers, Mixture

INSIDE = 99  # percentile of the specialists' distances to their nearest centroid that bounds the known space
VISITED = 0.01  # share of the answers from which on a centroid counts as visited


@dataclass(frozen=True)
class Centroids:
    """Where the specialists lie: names [K], means [K, L], tau (their median distance to the nearest) and the radius that holds 99 %."""

    kind: str  # "perspective" or "component"
    names: list[str]
    means: Floats
    tau: float
    radius: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"means": self.means.tolist()}


class Answers(NamedTuple):
    """A model's own answers: places [n, L], problem numbers [n], benchmark and subject of each."""

    z: Floats
    problem: Integers
    benchmark: list[str]
    subject: list[str]

    def take(self, rows: Integers) -> Answers:
        names = ([column[i] for i in rows] for column in (self.benchmark, self.subject))
        return Answers(self.z[rows], self.problem[rows], *names)


@dataclass(frozen=True)
class Row:
    """A student on a benchmark (`subject` None) or on one subject of it; the intervals are over problems.

    `coverage`: exp of the entropy of the mean inclination, beside K. `sharpness`: mean exp of the entropy of each answer's
    inclination, beside K; small is sharp. High coverage means something only where answers are sharper than it. `outside`:
    share of answers farther from every centroid than 99 % of the specialists' (see `radius_factor`). `visited`, `entropy`
    (beside log K) and `collapse` (0: all used alike, 1: one only) count the nearest centroid of each answer. `null` and `p` of
    a measure: what one specialist's answer to each problem, drawn by lot, would give, and how often that is as collapsed as the
    student.
    """

    model: str
    benchmark: str
    subject: str | None
    n: int
    inclination: list[float]
    low: list[float]
    high: list[float]
    coverage: Measure
    sharpness: Measure
    outside: Measure
    visited: Measure
    entropy: Measure
    collapse: Measure

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def perspective_centroids(z: Floats, perspective: Integers, names: list[str]) -> Centroids:
    """The mean place of each perspective's specialist."""
    means = np.stack([z[perspective == k].mean(0, dtype=np.float64) for k in range(len(names))])
    return _centroids("perspective", names, means, z)


def component_centroids(z: Floats, perspective: Integers, names: list[str], mixture: Mixture) -> Centroids:
    """The means of the mixture's active components, each named after the perspective that it is matched with, if any.

    The matching makes the number of points that agree as large as it can be; a component more than there are perspectives
    keeps its number as a name.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    active = mixture.active(z)
    component = mixture.assign(z)
    table = np.array([[np.sum((component == c) & (perspective == k)) for k in range(len(names))] for c in active])
    rows, columns = linear_sum_assignment(-table)
    matched = {int(active[r]): names[c] for r, c in zip(rows, columns, strict=True) if table[r, c] > 0}
    told = [matched.get(int(c), f"component {c}") for c in active]
    return _centroids("component", told, mixture.means[active], z)


def _centroids(kind: str, names: list[str], means: Floats, z: Floats) -> Centroids:
    nearest = _distances(z, means).min(1)
    return Centroids(kind, names, means, float(max(np.median(nearest), 1e-9)), float(np.percentile(nearest, INSIDE)))


def _distances(z: Floats, means: Floats) -> Floats:
    z = np.asarray(z, np.float64)
    square = (z**2).sum(1)[:, None] - 2 * z @ means.T + (means**2).sum(1)
    return np.asarray(np.sqrt(np.maximum(square, 0)))


def incline(z: Floats, centroids: Centroids) -> Floats:
    """c [n, K]: softmax of minus the distance to each centroid, in units of tau; rows sum to one."""
    from scipy.special import softmax  # type: ignore[import-untyped]

    return np.asarray(softmax(-_distances(z, centroids.means) / centroids.tau, axis=1))


def radius_factor(specialists: int) -> float:
    """How much farther noise takes a model that had no part in the problem means than it takes one of the `specialists` that
    make them: of a noise of variance v the former keeps v (1 + 1/K), the latter v (1 - 1/K). Exact where z is linear."""
    return float(np.sqrt((specialists + 1) / (specialists - 1)))


def inclinations(
    model: str,
    answers: Answers,
    centroids: Centroids,
    draws: int,
    seed: int,
    specialists: Answers | None = None,
    factor: float = 1.0,
) -> list[Row]:
    """A row for each benchmark and for each subject of it; `specialists` are their answers to the same problems, for `null`.

    `factor` widens the radius for the model, not for the specialists: `radius_factor` where problem means were removed.
    """
    rows = []
    benchmarks, subjects = np.array(answers.benchmark), np.array(answers.subject)
    for benchmark in dict.fromkeys(answers.benchmark):
        here = benchmarks == benchmark
        named = [subject for subject in dict.fromkeys(subjects[here].tolist()) if subject]
        for subject in [None, *(named if len(named) > 1 else [])]:
            chosen = np.flatnonzero(here & (subjects == subject) if subject else here)
            others = None
            if specialists is not None:
                others = specialists.take(np.flatnonzero(np.isin(specialists.problem, answers.problem[chosen])))
            rows.append(_row(model, benchmark, subject, answers.take(chosen), centroids, draws, seed, others, factor))
    return rows


def task_dependence(answers: Answers, centroids: Centroids, by: str, draws: int, seed: int) -> Measure:
    """Share of the variance of inclination that lies between benchmarks (or subjects); chance permutes them over problems."""
    names = answers.benchmark if by == "benchmark" else answers.subject
    _, problem = np.unique(answers.problem, return_inverse=True)
    count = int(problem.max()) + 1
    c = np.zeros((count, len(centroids.names)))
    np.add.at(c, problem, incline(answers.z, centroids))
    c /= np.bincount(problem)[:, None]
    label = np.zeros(count, np.int64)
    label[problem] = np.unique(names, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    value = _between(c, label)
    chance = np.array([_between(c, label[rng.permutation(count)]) for _ in range(draws)])
    drawn = [rng.integers(count, size=count) for _ in range(draws)]
    again = np.array([_between(c[rows], label[rows]) for rows in drawn])
    low, high = np.clip(value + np.percentile(again - again.mean(), CONFIDENCE), 0, 1)
    p = (1 + int((chance >= value - 1e-12).sum())) / (1 + draws)
    title = f"Share of the inclination's variance between {by}s"
    return Measure(
        f"dependence_{by}",
        title,
        value,
        float(low),
        float(high),
        float(chance.mean()),
        float(np.percentile(chance, 95)),
        p,
    )


def _between(c: Floats, label: Integers) -> float:
    sizes = np.bincount(label)
    sums = np.stack([np.bincount(label, weights=column) for column in c.T], axis=1)
    means = sums[sizes > 0] / sizes[sizes > 0, None]
    whole = ((c - c.mean(0)) ** 2).sum()
    return float((sizes[sizes > 0, None] * (means - c.mean(0)) ** 2).sum() / whole) if whole > 0 else 0.0


def _row(
    model: str,
    benchmark: str,
    subject: str | None,
    answers: Answers,
    centroids: Centroids,
    draws: int,
    seed: int,
    specialists: Answers | None,
    factor: float,
) -> Row:
    rng = np.random.default_rng(seed)
    values = _per_answer(answers.z, centroids, factor * centroids.radius)
    again = problem_bootstrap(values, answers.problem, draws, rng)
    chance = None if specialists is None else _by_lot(specialists, centroids, draws, rng)
    count = len(centroids.names)
    low, high = np.percentile(again[:, :count], CONFIDENCE, axis=0)
    measures = {
        name: _measured(name, title, of, sign, values.mean(0), again, chance, count)
        for name, (title, of, sign) in _MEASURES.items()
    }
    mean = values[:, :count].mean(0)
    return Row(model, benchmark, subject, len(values), mean.tolist(), low.tolist(), high.tolist(), **measures)


def _per_answer(z: Floats, centroids: Centroids, radius: float) -> Floats:
    """What the measures are means of [n, 2K + 2]: inclination, nearest centroid, exp of entropy, outside."""
    c = incline(z, centroids)
    distance = _distances(z, centroids.means)
    nearest = np.eye(c.shape[1])[distance.argmin(1)]
    outside = distance.min(1) > radius
    return np.column_stack([c, nearest, np.exp(_entropy(c)), outside])


def _by_lot(specialists: Answers, centroids: Centroids, draws: int, rng: Rng) -> Floats:
    """Means [draws, 2K + 2] of one specialist's answer to each problem, drawn by lot."""
    values = _per_answer(specialists.z, centroids, centroids.radius)
    found = []
    for _ in range(draws):
        order = rng.permutation(len(values))
        _, first = np.unique(specialists.problem[order], return_index=True)
        found.append(values[order[first]].mean(0))
    return np.stack(found)


def _entropy(shares: Floats) -> Floats:
    from scipy.special import entr

    return np.asarray(entr(shares).sum(-1))


def _coverage(means: Floats, k: int) -> Floats:
    return np.exp(_entropy(means[..., :k])) / k


def _sharpness(means: Floats, k: int) -> Floats:
    return np.asarray(means[..., 2 * k] / k)


def _outside(means: Floats, k: int) -> Floats:
    return np.asarray(means[..., 2 * k + 1])


def _visited(means: Floats, k: int) -> Floats:
    return np.asarray((means[..., k : 2 * k] >= VISITED).mean(-1))


def _use(means: Floats, k: int) -> Floats:
    return np.asarray(_entropy(means[..., k : 2 * k]) / max(np.log(k), 1e-9))


def _collapse(means: Floats, k: int) -> Floats:
    return np.asarray((means[..., k : 2 * k].max(-1) - 1 / k) / max(1 - 1 / k, 1e-9))


_MEASURES: dict[str, tuple[str, Callable[[Floats, int], Floats], int]] = {  # -1: small values are the collapsed ones
    "coverage": ("Coverage: exp of the entropy of the mean inclination, beside K", _coverage, -1),
    "sharpness": ("Sharpness: mean exp of the entropy of an answer's inclination, beside K", _sharpness, -1),
    "outside": ("Share of answers outside the specialists' 99 % radius", _outside, 1),
    "visited": ("Share of centroids that at least 1 % of the answers are nearest to", _visited, -1),
    "entropy": ("Entropy of the nearest centroids, beside log K", _use, -1),
    "collapse": ("Mode-collapse index: excess of the most used centroid", _collapse, 1),
}


def _measured(
    name: str,
    title: str,
    of: Callable[[Floats, int], Floats],
    sign: int,
    means: Floats,
    again: Floats,
    chance: Floats | None,
    k: int,
) -> Measure:
    value, replicates = float(of(means, k)), of(again, k)
    low, high = np.clip(value + np.percentile(replicates - replicates.mean(), CONFIDENCE), 0, 1)
    if chance is None:
        return Measure(name, title, value, float(low), float(high))
    lots = of(chance, k)
    p = (1 + int((sign * lots >= sign * value - 1e-12).sum())) / (1 + len(lots))
    return Measure(name, title, value, float(low), float(high), float(lots.mean()), float(np.percentile(lots, 95)), p)
