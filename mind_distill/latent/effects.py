"""How strong a preference is, whether chance explains it, and whether two preferences are the same (section 5, Figure 8b).

A preference is a table [P, K]: for each problem, the weight of each of K perspectives (alpha; pi_tau of
MetaNet's scores, or of minus the student's losses).
An effect is what its means over groups of problems tell: of all problems together, of each subject, of each level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = Sequence[str | None]
DRAWS = 999  # permutations, and resamples of problems
LEAST = 2  # problems a group must have


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval over resampled problems, and the share of permutations that reach it."""

    value: float
    low: float
    high: float
    p: float | None = None


def preference_of(losses: Floats, tau: float) -> Floats:
    """pi_tau(-L): the weights that equation 1 asks MetaNet for; NaN where a loss is unknown."""
    with np.errstate(invalid="ignore"):
        scores = -losses / tau
        powers = np.exp(scores - np.nanmax(scores, axis=-1, keepdims=True, initial=-np.inf, where=np.isfinite(scores)))
        total = np.nansum(powers, axis=-1, keepdims=True)
        return np.asarray(np.where(total > 0, powers / total, np.nan))


def centred(table: Floats) -> Floats:
    """Each problem's weights against their mean over its perspectives; what is unknown is 0, which tells nothing."""
    known = np.isfinite(table)
    count = known.sum(-1, keepdims=True)
    total = np.where(known, table, 0.0).sum(-1, keepdims=True)
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    return np.asarray(np.where(known, table - mean, 0.0))


def membership(labels: Labels | None, problems: int) -> Floats:
    """[G, P]: which problems are in each group; one group of all where there are no labels. Small groups are left out."""
    if labels is None:
        return np.ones((1, problems))
    names = sorted({label for label in labels if label is not None})
    rows = [[label == name for label in labels] for name in names]
    member = np.array(rows, dtype=float).reshape(len(names), problems)
    return np.asarray(member[member.sum(1) >= LEAST])


def effect(table: Floats, member: Floats) -> Floats:
    """[G, K]: the groups' mean preference. Of several groups, against the mean of all, so that only differences count."""
    values = centred(table)
    if len(member) > 1:
        values = values - (member.sum(0) @ values) / max(member.sum(), 1.0)
    counts = member.sum(1, keepdims=True)
    return np.asarray(member @ values / np.maximum(counts, 1.0))


def strength(table: Floats, member: Floats) -> float:
    """The share of the weight that is moved: total variation of the mean from equal weights for one group; for several, of
    each group's mean from the mean of all, a mean over problems. A size and not a share of variance, since what varies in
    a network that reads texts varies with their subject however little it is.
    """
    moved = np.abs(effect(table, member)).sum(1) / 2
    counts = member.sum(1)
    return float((counts * moved).sum() / max(counts.sum(), 1.0))


def chance(table: Floats, member: Floats, rng: np.random.Generator) -> float:
    """p of the strength. One group: against each problem's perspectives exchanged. Several: against problems relabelled."""
    found = strength(table, member)
    if found < 1e-12:
        return 1.0
    as_strong = 0
    values, known, one = centred(table), np.isfinite(table), len(member) == 1
    for _ in range(DRAWS):
        drawn = _exchanged(values, known, rng) if one else _relabelled(table, member, rng)
        as_strong += strength(drawn, member) >= found * (1 - 1e-9)
    return (1 + as_strong) / (DRAWS + 1)


def agreement(one: Floats, other: Floats, member: Floats, rng: np.random.Generator) -> Estimate | None:
    """Correlation of two preferences' effects over the same problems, its interval, and p against the other relabelled.

    One group: against the other's perspectives renamed. None where one of them does not vary at all.
    """
    mine, theirs = effect(one, member), effect(other, member)
    found = _correlation(mine, theirs)
    if found is None:
        return None
    reached = 0
    for _ in range(DRAWS):
        renamed = len(member) == 1
        drawn = (
            theirs[:, rng.permutation(len(theirs.T))] if renamed else effect(_relabelled(other, member, rng), member)
        )
        reached += (_correlation(mine, drawn) or 0.0) >= found - 1e-12
    low, high = _interval([one, other], member, rng)
    return Estimate(found, low, high, (1 + reached) / (DRAWS + 1))


def _interval(tables: Sequence[Floats], member: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the correlation of two effects over resampled problems."""
    drawn = []
    for _ in range(DRAWS):
        chosen = rng.integers(0, member.shape[1], member.shape[1])
        part = member[:, chosen]
        part = part[part.sum(1) >= LEAST] if len(member) > 1 else part
        if len(part) == 0 or (len(member) > 1 and len(part) < 2):
            continue
        value = _correlation(effect(tables[0][chosen], part), effect(tables[1][chosen], part))
        drawn.append(0.0 if value is None else value)
    if not drawn:
        return -1.0, 1.0
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def resampled_mean(values: Floats, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Means over problems of [P, ...] values and the ends of their 95 % intervals."""
    drawn = np.stack([values[rng.integers(0, len(values), len(values))].mean(0) for _ in range(DRAWS)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return values.mean(0), low, high


def _exchanged(values: Floats, known: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Each problem's known values in another order; the unknown ones stay where they are."""
    keys = np.where(known, rng.random(values.shape), np.inf)
    order = np.argsort(keys, axis=1)  # known slots in random order, then the unknown
    places = np.argsort(~known, axis=1, kind="stable")  # known slots in their own order, then the unknown
    drawn = np.empty_like(values)
    np.put_along_axis(drawn, places, np.take_along_axis(values, order, 1), 1)
    return np.asarray(np.where(known, drawn, np.nan))


def _relabelled(table: Floats, member: Floats, rng: np.random.Generator) -> Floats:
    """The table with the rows of the problems that are in a group exchanged."""
    kept = np.flatnonzero(member.sum(0))
    drawn = table.copy()
    drawn[kept] = table[rng.permutation(kept)]
    return drawn


def _correlation(one: Floats, other: Floats) -> float | None:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum() / scale) if scale > 1e-12 else None
