"""Student and MetaNet side by side while they train (section 5, Figure 8a): losses, rank agreement, and who follows whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mind_distill.latent.effects import DRAWS, Estimate, preference_of
from mind_distill.latent.trace import Flags, Floats, Trace

POINTS = 120  # of a series; each is the mean over a few steps
EXCHANGES = 199  # draws of what would agree by chance
FEWEST_STEPS = 12


@dataclass(frozen=True)
class Series:
    """Means over spans of steps, for the figure: [first, last] step of each, the losses, the rank agreement."""

    steps: list[list[int]]
    student: list[float | None]
    metanet: list[float | None]
    rank: list[float | None]


@dataclass(frozen=True)
class Steadiness:
    """MetaNet's loss in the first and the last fifth of the steps: its mean, and how far it jumps from step to step."""

    first: float
    last: float
    jump_first: float
    jump_last: float


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho of MetaNet's scores with minus the student's losses, a mean over problems of each one's visits.

    `exchanged` is what scores of other problems reach: the order of the perspectives alone, with nothing of the problem. A
    third in which nothing was read is None.
    """

    whole: Estimate
    exchanged: float | None
    first_third: float | None
    last_third: float | None


@dataclass(frozen=True)
class Lag:
    """The shift in steps at which alpha follows pi_tau(-L) best (negative: it leads), and the correlation there.

    `p` compares with the best shift after time was turned round in a circle; `within_problems` says whether what is
    constant in a problem was taken out, without which the same text on both sides looks like following.
    """

    steps: int
    low: int
    high: int
    correlation: float
    p: float
    within_problems: bool
    steps_per_point: int
    shifts: list[int]
    correlations: list[float]


def series(trace: Trace) -> Series:
    """The run's recorded losses and the visits' rank agreement, over at most POINTS spans of its steps."""
    spans = _spans(trace)
    rho = rank_agreement(trace)
    columns = {key: _recorded(trace, key) for key in ("sft", "meta")}
    found: dict[str, list[float | None]] = {"sft": [], "meta": [], "rank": []}
    for first, last in spans:
        for key, (steps, values) in columns.items():
            found[key].append(_mean(values[(steps >= first) & (steps <= last)]))
        inside = (trace.step >= first) & (trace.step <= last)
        found["rank"].append(_mean(rho[inside]))
    return Series(spans, found["sft"], found["meta"], found["rank"])


def steadiness(trace: Trace) -> Steadiness | None:
    """How MetaNet's loss settles; None if it is not recorded for long enough."""
    _, values = _recorded(trace, "meta")
    fifth = len(values) // 5
    if fifth < 3:
        return None
    first, last = values[:fifth], values[-fifth:]
    jumps = [float(np.abs(np.diff(part)).mean()) for part in (first, last)]
    return Steadiness(float(first.mean()), float(last.mean()), *jumps)


def agreement(trace: Trace, rng: np.random.Generator) -> Agreement | None:
    """The rank agreement of the whole run with its interval over problems; None without scores, or where no visit read two paths."""
    if trace.score is None:
        return None
    rho = rank_agreement(trace)
    by_problem = _of_problems(trace, rho)
    if not len(by_problem):
        return None
    drawn = [by_problem[rng.integers(0, len(by_problem), len(by_problem))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = float(by_problem.mean())
    draws = [_mean(_of_problems(trace, _exchanged_agreement(trace, rng))) for _ in range(EXCHANGES)]
    exchanged = np.array([mean for mean in draws if mean is not None])
    p = (1 + int((exchanged >= value).sum())) / (len(exchanged) + 1) if len(exchanged) else None
    first, last = (_mean(_of_problems(trace, rho, trace.third == third)) for third in (0, 2))
    return Agreement(Estimate(value, float(low), float(high), p), _mean(exchanged), first, last)


def _of_problems(trace: Trace, values: Floats, only: Flags | None = None) -> Floats:
    """The mean of a number a visit over each problem's visits, of the problems where it is known."""
    means = trace.per_problem(np.repeat(values[:, None], trace.valid.shape[1], 1), only)[:, 0]
    return np.asarray(means[np.isfinite(means)])


def rank_agreement(trace: Trace) -> Floats:
    """Spearman's rho of each visit [V]; NaN where fewer than two paths were read or there is no score."""
    if trace.score is None:
        return np.full(len(trace.step), np.nan)
    return _spearman(trace.score, -trace.nll)


def _exchanged_agreement(trace: Trace, rng: np.random.Generator) -> Floats:
    """The same with the scores of visits to other problems in the same third of the training."""
    assert trace.score is not None
    order = np.arange(len(trace.step))
    for third in range(3):
        inside = np.flatnonzero(trace.third == third)
        order[inside] = rng.permutation(inside)
    return _spearman(trace.score[order], -trace.nll)


def _spearman(one: Floats, other: Floats) -> Floats:
    known = np.isfinite(one) & np.isfinite(other)
    a, b = _ranks(one, known), _ranks(other, known)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    rho = np.divide((a * b).sum(1), scale, out=np.zeros(len(a)), where=scale > 1e-12)
    return np.where(known.sum(1) >= 2, rho, np.nan)


def _ranks(values: Floats, known: Flags) -> Floats:
    """Ranks of the known values around their mean, equal ones sharing a rank; 0 where unknown."""
    filled = np.where(known, values, np.nan)
    below = (filled[:, :, None] > filled[:, None, :]).sum(2) + (filled[:, :, None] == filled[:, None, :]).sum(2) / 2
    count = np.maximum(known.sum(1, keepdims=True), 1)
    mean = np.where(known, below, 0.0).sum(1, keepdims=True) / count
    return np.where(known, below - mean, 0.0)


def lag(trace: Trace, tau: float, rng: np.random.Generator) -> Lag | None:
    """How alpha follows the student's losses; None where fewer than FEWEST_STEPS points in time are recorded."""
    read = np.asarray((np.isfinite(trace.nll) | ~trace.valid[trace.problem]).all(1))
    visits = np.bincount(trace.problem[read], minlength=len(trace.lessons))
    within = bool((visits >= 2).mean() >= 0.5)
    alpha, real = trace.alpha, preference_of(trace.nll, tau)
    if within:
        alpha, real = (values - trace.per_problem(values, read)[trace.problem] for values in (alpha, real))
    alpha, real = np.nan_to_num(alpha), np.nan_to_num(real)
    spans = _spans(trace)
    usable = read & (visits[trace.problem] >= 2) if within else read
    rows = [np.flatnonzero(usable & (trace.step >= first) & (trace.step <= last)) for first, last in spans]
    if len(spans) < FEWEST_STEPS or sum(len(row) == 0 for row in rows) > len(rows) // 10:
        return None
    late, early = (_in_time(values, rows) for values in (alpha, real))
    shifts = list(range(-(len(spans) // 4), len(spans) // 4 + 1))
    shifted = _shifted(late, early, shifts)
    found = _correlations(shifted)
    if not found.any():
        return None
    size = spans[0][1] - spans[0][0] + 1
    low, high = np.quantile(_peaks(shifted, shifts, rng), [0.025, 0.975]) * size
    return Lag(
        steps=shifts[int(found.argmax())] * size,
        low=round(float(low)),
        high=round(float(high)),
        correlation=float(found.max()),
        p=_by_turning(late, early, shifts, float(found.max()), rng),
        within_problems=within,
        steps_per_point=size,
        shifts=[shift * size for shift in shifts],
        correlations=[float(value) for value in found],
    )


def _shifted(late: Floats, early: Floats, shifts: list[int]) -> Floats:
    """Products of `late` with `early` of so many points before, and both squares, 0 where they do not overlap: [3, S, T]."""
    points = len(late)
    table = np.zeros((3, len(shifts), points))
    for i, shift in enumerate(shifts):
        here, there = (slice(max(0, s), points + min(0, s)) for s in (shift, -shift))
        a, b = late[here], early[there]
        for row, product in enumerate((a * b, a * a, b * b)):
            table[row, i, there] = product.sum(1)
    return table


def _correlations(shifted: Floats) -> Floats:
    """The correlation at each shift: [S]."""
    product, one, other = shifted.sum(-1)
    scale = np.sqrt(one * other)
    return np.asarray(np.divide(product, scale, out=np.zeros_like(product), where=scale > 1e-12))


def _in_time(values: Floats, rows: list[np.ndarray]) -> Floats:
    """[T, K] means of the rows of each point in time around the mean over time; a point without rows repeats the one before."""
    found: list[Floats] = []
    for row in rows:
        found.append(values[row].mean(0) if len(row) else found[-1] if found else np.zeros(values.shape[1]))
    table = np.stack(found)
    return np.asarray(table - table.mean(0))


def _peaks(shifted: Floats, shifts: list[int], rng: np.random.Generator) -> Floats:
    """The best shift in resamples of time, drawn in blocks because neighbouring steps resemble one another."""
    points = shifted.shape[-1]
    block = max(2, round(points**0.5))
    peaks = []
    for _ in range(DRAWS):
        starts = rng.integers(0, points, -(-points // block))
        chosen = (starts[:, None] + np.arange(block)).ravel()[:points] % points
        peaks.append(shifts[int(_correlations(shifted[:, :, chosen]).argmax())])
    return np.array(peaks, dtype=float)


def _by_turning(late: Floats, early: Floats, shifts: list[int], found: float, rng: np.random.Generator) -> float:
    """p of the best shift: how often a series turned round in a circle, further than any shift, reaches it."""
    points, most = len(late), shifts[-1]
    reached = 0
    for _ in range(EXCHANGES):
        turned = np.roll(early, int(rng.integers(most + 1, points - most)), axis=0)
        reached += bool(_correlations(_shifted(late, turned, shifts)).max() >= found)
    return (1 + reached) / (EXCHANGES + 1)


def _spans(trace: Trace) -> list[list[int]]:
    first, last = int(trace.step.min()), int(trace.step.max())
    size = -(-(last - first + 1) // POINTS)
    return [[start, min(start + size - 1, last)] for start in range(first, last + 1, size)]


def _recorded(trace: Trace, key: str) -> tuple[Floats, Floats]:
    """Steps and values of a number of metrics.jsonl, where it is one."""
    pairs = [(row.get("step"), row.get(key)) for row in trace.metrics]
    known = [pair for pair in pairs if all(isinstance(x, int | float) and np.isfinite(x) for x in pair)]
    steps, values = np.array(known, dtype=float).reshape(-1, 2).T
    return steps, values


def _mean(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
