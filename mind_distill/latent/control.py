"""The seed control: different adapters separate trivially, so perspectives must separate more than seeds do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mind_distill.errors import UserError
from mind_distill.latent.geometry import GeometrySettings, Measure, Points, Rng, check, folds, problem_bootstrap, told
from mind_distill.latent.mixture import Floats, Integers
from mind_distill.latent.separation import correct_on_held_out

FEWEST_MODELS = 3  # two seeds are one pair, which does not show how far pairs differ
SHRINKAGE = 0.1  # of the mean variance, added to each: narrow directions are ill known and must not decide


@dataclass(frozen=True)
class Verdict:
    """A claim, whether it holds (None: cannot be told) and why, in words."""

    claim: str
    holds: bool | None
    because: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Control(NamedTuple):
    """Separation of the specialists, of the seed-only models, the first less the second, and pairwise accuracy of both."""

    measures: list[Measure]
    verdict: Verdict


def compare_with_control(study: Points, control: Points, settings: GeometrySettings, seed: int) -> Control:
    """Do specialists of different perspectives lie further apart than models that differ in seed alone?

    `perspective` numbers the models of each; both read the same problems, numbered alike, through the same kind of encoder.
    Separation is the distance between two models' means in units of the spread within a model, averaged over pairs, so that
    the number of models does not matter; its square is estimated from pairs of different problems, so that it is nought on
    average where there is nothing. The interval counts the choice of problems and of models. Linear z (`kind: pca`) is the fairest
    place: the coupled encoder shrinks the very spread that is the unit.
    """
    for points in (study, control):
        check(points)
        if len(np.unique(points.perspective)) < 2:
            raise UserError("A control of one model separates nothing; give at least two that differ in seed only.")
    rng = np.random.default_rng(seed)
    both = [_paired(points) for points in (study, control)]
    once = [np.ones(len(pairs.problems)) for pairs in both]
    squares = [_squares(pairs, often) for pairs, often in zip(both, once, strict=True)]
    parts = [_Part(*pair) for pair in zip(map(_separation, squares), map(_jackknife, squares), strict=True)]
    if not all(np.isfinite(part.value) for part in parts):
        raise UserError(
            "Some two models have fewer than two problems in common; let all of them read the same problems."
        )
    replicates = _replicates(both, settings.draws, rng)
    chance = [_separation(_squares(_shuffled(both[0], rng), once[0])) for _ in range(settings.draws)]
    labels = ("Separation of specialists, in spreads within a model", "Separation of seeds, in spreads within a model")
    null = told("", "", parts[0].value, list(replicates[:, 0]), chance)
    separation = _measured("separation_perspective", labels[0], replicates[:, 0], parts[:1])
    separation = replace(separation, null=null.null, null_high=null.null_high, p=null.p)
    excess = _measured(
        "separation_excess", "Separation beyond that of seeds", replicates[:, 0] - replicates[:, 1], parts
    )
    measures = [
        separation,
        _measured("separation_control", labels[1], replicates[:, 1], parts[1:]),
        excess,
        _pairwise("pairwise_perspective", "Two specialists told apart, held-out problems", study, settings, rng),
        _pairwise("pairwise_control", "Two seeds told apart, held-out problems", control, settings, rng),
    ]
    return Control(measures, _verdict(separation, parts[1].value, excess, both[1].models))


def _replicates(both: list[_Pairs], draws: int, rng: Rng) -> Floats:
    """Separations [draws, 2] of both over bootstrap samples of the problems, the same sample for both."""
    numbers = np.unique(np.concatenate([pairs.problems for pairs in both]))
    found: list[list[float]] = []
    for _ in range(10 * draws):  # a sample with hardly a problem in common for some pair is drawn again
        drawn = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers))).astype(np.float64)
        again = [_separation(_squares(pairs, drawn[np.searchsorted(numbers, pairs.problems)])) for pairs in both]
        if np.isfinite(again).all():
            found.append(again)
        if len(found) == draws:
            return np.array(found)
    raise UserError("Some two models have too few problems in common; let all of them read the same problems.")


class _Part(NamedTuple):
    """A separation, and its variance and number where the models are drawn anew (jackknife over models)."""

    value: float
    spread: tuple[float, int]


def _measured(name: str, label: str, replicates: Floats, parts: list[_Part]) -> Measure:
    """The first part less the second, with Welch's interval: problems by bootstrap, models, which are few, by jackknife."""
    from scipy.stats import t  # type: ignore[import-untyped]

    value = parts[0].value - sum(part.value for part in parts[1:])
    by_models = [part.spread for part in parts if part.spread[1] > 2]
    variance = float(np.var(replicates)) + sum(v for v, _ in by_models)
    loose = sum(v**2 / (count - 1) for v, count in by_models)
    freedom = variance**2 / loose if loose > 0 else np.inf
    reach = float(t.ppf(0.975, freedom)) * variance**0.5
    return Measure(name, label, value, value - reach, value + reach)


def _verdict(separation: Measure, theirs: float, excess: Measure, models: int) -> Verdict:
    claim = "Specialists of different perspectives separate more than models that differ in seed only"
    numbers = (
        f"separation {separation.value:.2f} against {theirs:.2f} among {models} seeds, difference {excess.value:+.2f} "
        f"[{excess.low:+.2f}, {excess.high:+.2f}]"
    )
    if separation.p is not None and separation.p > 0.05:
        return Verdict(claim, False, f"the specialists are not separated at all (p = {separation.p:.2g}); {numbers}.")
    if excess.high < 0:
        return Verdict(claim, False, f"seeds alone separate models more; {numbers}.")
    if excess.low <= 0:
        return Verdict(claim, None, f"the interval of the difference holds nought; {numbers}.")
    if models < FEWEST_MODELS:
        return Verdict(
            claim,
            None,
            f"{models} seeds make one pair, which does not show how far pairs differ; {numbers}.",
        )
    return Verdict(claim, True, f"{numbers}.")


class _Pairs(NamedTuple):
    """Mean place of each model on each problem, in units of the spread within a model [P, M, L]; NaN where a model has none."""

    problems: Integers
    places: Floats

    @property
    def models(self) -> int:
        return int(self.places.shape[1])


def _paired(points: Points) -> _Pairs:
    numbers, at = np.unique(points.problem, return_inverse=True)
    _, model = np.unique(points.perspective, return_inverse=True)
    models = int(model.max()) + 1
    z = np.asarray(points.z, np.float64)
    sums = np.zeros((len(numbers), models, z.shape[1]))
    counts = np.zeros((len(numbers), models, 1))
    np.add.at(sums, (at, model), z)
    np.add.at(counts, (at, model), 1)
    places = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    places -= np.nanmean(places, axis=1, keepdims=True)
    residual = places - np.nanmean(places, axis=0)
    rows = residual[np.isfinite(residual).all(-1)]
    # M deviations from a problem's mean hold M - 1 free ones; without this two models would look closer than eight.
    spread = rows.T @ rows / max(1, len(rows) - models) * (models / (models - 1))
    spread[np.diag_indices_from(spread)] += SHRINKAGE * max(float(np.trace(spread)) / len(spread), 1e-12)
    return _Pairs(numbers, places @ np.linalg.inv(np.linalg.cholesky(spread)).T)


def _squares(pairs: _Pairs, times: Floats) -> Floats:
    """Squared distances [M, M] between models, each problem counted so many times.

    Sums over pairs of different problems: a problem with itself would add its own noise.
    """
    out = np.full((pairs.models, pairs.models), np.nan)
    for i in range(pairs.models):
        for j in range(i):
            apart = pairs.places[:, i] - pairs.places[:, j]  # [P, L]
            known = np.isfinite(apart[:, 0])
            apart, often = apart[known], times[known]
            many = often.sum() ** 2 - (often**2).sum()
            if many > 0:
                whole = often @ apart
                out[i, j] = out[j, i] = (whole @ whole - often**2 @ (apart**2).sum(1)) / many
    return out


def _separation(squares: Floats) -> float:
    """Signed root of the mean squared distance over the pairs of models."""
    mean = float(squares[np.tril_indices(len(squares), -1)].mean())
    return float(np.sign(mean) * np.sqrt(abs(mean)))


def _jackknife(squares: Floats) -> tuple[float, int]:
    """Variance of the separation over the choice of models, and their number; nothing is known of it from two."""
    count = len(squares)
    if count < 3:
        return 0.0, count
    without = [_separation(np.delete(np.delete(squares, i, 0), i, 1)) for i in range(count)]
    return float((count - 1) * np.var(without)), count


def _shuffled(pairs: _Pairs, rng: Rng) -> _Pairs:
    """The models of each problem permuted among those that it has."""
    places = pairs.places.copy()
    for row in places:
        there = np.flatnonzero(np.isfinite(row[:, 0]))
        row[there] = row[rng.permutation(there)]
    return _Pairs(pairs.problems, places)


def _pairwise(name: str, label: str, points: Points, settings: GeometrySettings, rng: Rng) -> Measure:
    """Mean accuracy over pairs of models of a linear probe on held-out problems."""
    fold = folds(points.problem, settings.folds, rng)
    models = np.unique(points.perspective)
    right, counts = np.zeros(len(points.z)), np.zeros(len(points.z))
    for i, one in enumerate(models):
        for other in models[:i]:
            rows = np.flatnonzero((points.perspective == one) | (points.perspective == other))
            labels = (points.perspective[rows] == one).astype(np.int64)
            right[rows] += correct_on_held_out(points.z[rows], [labels], fold[rows])[0]
            counts[rows] += 1
    share = right / counts
    again = problem_bootstrap(share[:, None], points.problem, settings.draws, rng)[:, 0]
    return told(name, label, float(share.mean()), list(again))
