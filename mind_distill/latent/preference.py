"""MetaNet as a probe (section 5, Figure 8): is a preference for ways of thinking the student's own, or MetaNet's doing?

`examine` reads a finished MIND run, and one with uniform weights where there is one, and answers from measured numbers only.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mind_distill.errors import UserError
from mind_distill.latent import dynamics, effects
from mind_distill.latent.retraining import Retraining, Shuffle
from mind_distill.latent.trace import FEWEST, THIRDS, Floats, Trace, read_trace
from mind_distill.latent.verdict import Answer, Claim, Kept, answer
from mind_distill.methods.base import Track
from mind_distill.report.subjects import preference_test
from mind_distill.runs import publish

FORMAT = 1
SHUFFLES = 19  # the fewest with which p can be 0.05
BY = ("subject", "level")


@dataclass(frozen=True)
class Groups:
    """Mean weights of the perspectives in each subject or level over part of the training, with a permutation test.

    `of` is `alpha`, MetaNet's weights, or `student`, pi_tau(-L) of the run with uniform weights.
    """

    of: str
    by: str
    phase: str
    names: list[str]
    counts: list[int]
    cells: list[list[float]]
    marked: list[list[bool]]
    p: float


@dataclass(frozen=True)
class Means:
    """Mean weight of each perspective with its 95 % interval over problems, of alpha or of the student's pi_tau(-L)."""

    of: str
    phase: str
    value: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class Reinforcement:
    """Whether a weight makes itself true: the fall of a path's loss between a problem's first and last visit, in nats a unit of
    alpha, under MIND and, with the same alpha that was not used there, under uniform weights; and the difference."""

    mind: float
    uniform: float
    difference: effects.Estimate


@dataclass(frozen=True)
class Replay:
    """How near the retrained MetaNet is to the recorded one: correlation of their scores within visits, and of their alpha."""

    scores: float
    alpha: float
    shuffles: int


@dataclass(frozen=True)
class Preference:
    """Everything that `preference.json` says of one MIND run."""

    run: str
    uniform: str | None
    seed: int
    perspectives: list[str]
    problems: int
    visits: int
    tau: float
    series: dynamics.Series
    steadiness: dynamics.Steadiness | None
    agreement: dynamics.Agreement | None
    lag: dynamics.Lag | None
    means: list[Means]
    groups: list[Groups]
    replay: Replay | None
    reinforcement: Reinforcement | None
    claims: list[Claim]
    answers: list[Answer]
    notes: list[str]


@contextlib.contextmanager
def _silent(_: str, __: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def examine(
    run: Path, uniform: Path | None, seed: int, *, shuffles: int = SHUFFLES, track: Track = _silent
) -> Preference:
    """The probe of one run. `uniform` is a run of method uniform on the same lessons; without it no answer says intrinsic.

    MetaNet is trained again 1 + 2 x `shuffles` times on the stored visits; 0 leaves that test out.
    """
    trace = read_trace(Path(run))
    if trace.method != "mind":
        raise UserError(f"{run} was trained with '{trace.method}'; MetaNet is examined in a run of method mind.")
    beside = _read_uniform(Path(uniform), trace) if uniform is not None else None
    tau = _tau(trace)
    names = [perspective.name for perspective in trace.perspectives]
    replay, kept = _counter_test(trace, tau, shuffles, seed, track)
    student = _student_preference(beside, trace, tau) if beside else None
    claims = [claim for by in (None, *BY) if (claim := _claim(trace, student, by, kept, tau, seed)) is not None]
    reinforcement = _reinforcement(trace, beside, _generator(seed, "reinforcement")) if beside else None
    return Preference(
        run=trace.run,
        uniform=beside.run if beside else None,
        seed=seed,
        perspectives=names,
        problems=len(trace.lessons),
        visits=len(trace.step),
        tau=tau,
        series=dynamics.series(trace),
        steadiness=dynamics.steadiness(trace),
        agreement=dynamics.agreement(trace, _generator(seed, "agreement")),
        lag=dynamics.lag(trace, tau, _generator(seed, "lag")),
        means=_means(trace, beside, tau, seed),
        groups=_groups(trace, beside, tau, seed),
        replay=replay,
        reinforcement=reinforcement,
        claims=claims,
        answers=[answer(claim, reinforcement.difference if reinforcement else None) for claim in claims],
        notes=_notes(trace, beside, shuffles),
    )


def write_preferences(folder: Path, found: Sequence[Preference]) -> Path:
    """Write preference.json into the folder (docs/formats.md); the same findings give the same bytes."""
    target = folder / "preference.json"
    rows = [_rounded(asdict(preference)) for preference in found]
    publish(target, json.dumps({"format": FORMAT, "runs": rows}, indent=1, allow_nan=False) + "\n")
    return target


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return round(float(value), 6) if isinstance(value, float) else value


def _generator(seed: int, name: str) -> np.random.Generator:
    """One a measure, so that another measure changes no number of this one."""
    return np.random.default_rng([seed, *name.encode()])


def _read_uniform(folder: Path, trace: Trace) -> Trace:
    """The run without MetaNet; a UserError where it is something else or shares too few problems."""
    other = read_trace(folder)
    alone = other.method == "uniform" or other.settings["method"].get("weights") == "uniform"
    if not alone:
        raise UserError(
            f"{folder} was trained with '{other.method}'; the student without MetaNet is a run of method uniform."
        )
    for key in ("student", "answer_format"):
        if other.settings.get(key) != trace.settings.get(key):
            raise UserError(
                f"{folder}: {key} is '{other.settings.get(key)}', but '{trace.settings.get(key)}' in {trace.run}; compare runs of "
                "the same student."
            )
    if [p.key for p in other.perspectives] != [p.key for p in trace.perspectives]:
        raise UserError(f"{folder} learned from other perspectives than {trace.run}; compare runs on the same corpus.")
    shared = {lesson.problem.id for lesson in trace.lessons} & {lesson.problem.id for lesson in other.lessons}
    if len(shared) < FEWEST:
        raise UserError(
            f"{folder} shares {len(shared)} problems with {trace.run}; at least {FEWEST} are needed to compare."
        )
    return other


def _tau(trace: Trace) -> float:
    """The temperature of the run, which it writes with every step."""
    for row in trace.metrics:
        if isinstance(row.get("tau"), float) and row["tau"] > 0:
            return float(row["tau"])
    given = trace.settings["method"].get("tau")
    if isinstance(given, int | float) and given > 0:
        return float(given)
    raise UserError(f"{trace.run}: no line of metrics.jsonl holds tau, the temperature of its weights; train it again.")


def _at(values: Floats, trace: Trace, other: Trace) -> Floats:
    """Rows [P, K] of `other`'s problems in the order of `trace`'s; NaN for those that it did not visit."""
    place = {lesson.problem.id: i for i, lesson in enumerate(other.lessons)}
    missing = np.full(values.shape[1], np.nan)
    return np.stack([values[place[m.problem.id]] if m.problem.id in place else missing for m in trace.lessons])


def _student_preference(beside: Trace, trace: Trace, tau: float) -> Floats:
    """pi_tau(-L) [P, K] of the student without MetaNet, at `trace`'s problems."""
    return _at(beside.per_problem(effects.preference_of(beside.nll, tau)), trace, beside)


def _counter_test(
    trace: Trace, tau: float, shuffles: int, seed: int, track: Track
) -> tuple[Replay | None, dict[str, list[Floats]]]:
    """The replay, and the preferences per problem of MetaNets trained on the run's own and on shuffled feedback."""
    if trace.score is None:
        raise UserError(f"{trace.run}: its visits hold no scores, so it has no MetaNet to examine (method.weights).")
    if not shuffles:
        return None, {}
    retraining = Retraining(trace, tau, track)
    kept: dict[str, list[Floats]] = {}
    with track("Training MetaNet again on shuffled feedback", 1 + 2 * shuffles) as advance:
        scores, alpha = retraining.alpha("none", seed)
        kept["none"] = [_asked(trace, scores, tau)]
        advance(1)
        kinds: tuple[Shuffle, ...] = ("perspectives", "problems")
        for kind in kinds:
            kept[kind] = []
            for i in range(shuffles):
                kept[kind].append(_asked(trace, retraining.alpha(kind, seed * 1_000 + i + 1)[0], tau))
                advance(1)
    given = np.where(trace.valid[trace.problem], trace.score, np.nan)
    own = np.where(trace.valid[trace.problem], scores, np.nan)
    return Replay(_likeness(given, own), _likeness(trace.alpha, alpha), shuffles), kept


def _likeness(one: Floats, other: Floats) -> float:
    """Correlation of two tables after each row's mean is taken out."""
    a, b = effects.centred(one), effects.centred(other)
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale > 1e-12 else 0.0


def _asked(trace: Trace, scores: Floats, tau: float) -> Floats:
    """pi_tau(s) [P, K], a mean over visits: MetaNet's side of equation 1, before the selection cuts it to alpha."""
    there = trace.valid[trace.problem]
    return trace.per_problem(effects.preference_of(-np.where(there, scores, np.nan), tau))


def _claim(
    trace: Trace, student: Floats | None, by: str | None, kept: dict[str, list[Floats]], tau: float, seed: int
) -> Claim | None:
    """What was measured of one kind of preference: over all problems, by subject or by level. None with fewer than two groups."""
    labels = trace.labels(by) if by else None
    member = effects.membership(labels, len(trace.lessons))
    if by and len(member) < 2:
        return None
    rng = _generator(seed, f"claim {by}")
    assert trace.score is not None
    asked = _asked(trace, trace.score, tau)
    claim = Claim(by, effects.strength(asked, member), effects.chance(asked, member, rng))
    if kept:
        shuffled = [effects.strength(table, member) for table in kept["problems" if by else "perspectives"]]
        own = effects.strength(kept["none"][0], member)
        p = (1 + sum(value >= own for value in shuffled)) / (len(shuffled) + 1)
        claim = replace(claim, kept=Kept(own, float(np.mean(shuffled)), float(np.max(shuffled)), p))
    if student is not None:
        shared = np.isfinite(student).any(1)
        part = member[:, shared]
        part = part[part.sum(1) >= effects.LEAST] if by else part
        if len(part) >= (2 if by else 1):
            claim = replace(
                claim,
                student=effects.strength(student[shared], part),
                student_p=effects.chance(student[shared], part, rng),
                agreement=effects.agreement(asked[shared], student[shared], part, rng),
            )
    return claim


def _means(trace: Trace, beside: Trace | None, tau: float, seed: int) -> list[Means]:
    """Mean weights of the perspectives, over all visits and in the first and last third of the steps."""
    found = []
    sources = [("alpha", trace, trace.alpha)]
    if beside:
        sources.append(("student", beside, effects.preference_of(beside.nll, tau)))
    for of, source, values in sources:
        for phase in ("all", THIRDS[0], THIRDS[2]):
            only = None if phase == "all" else source.third == THIRDS.index(phase)
            table = source.per_problem(values, only)
            table = np.nan_to_num(table[np.isfinite(table).any(1)])
            if len(table) >= effects.LEAST:
                parts = effects.resampled_mean(table, _generator(seed, f"means {of} {phase}"))
                found.append(Means(of, phase, *(part.tolist() for part in parts)))
    return found


def _groups(trace: Trace, beside: Trace | None, tau: float, seed: int) -> list[Groups]:
    """Weights by subject and by level: alpha over all visits and over each third of the steps, the student's over all."""
    found = []
    for by in BY:
        for phase in ("all", *THIRDS):
            only = None if phase == "all" else trace.third == THIRDS.index(phase)
            found.append(_group("alpha", by, phase, trace.per_problem(trace.alpha, only), trace.labels(by), seed))
        if beside:
            table = beside.per_problem(effects.preference_of(beside.nll, tau))
            found.append(_group("student", by, "all", table, beside.labels(by), seed))
    return [groups for groups in found if groups is not None]


def _group(of: str, by: str, phase: str, table: Floats, labels: Sequence[str | None], seed: int) -> Groups | None:
    kept = [i for i, label in enumerate(labels) if label is not None and np.isfinite(table[i]).any()]
    given = [str(labels[i]) for i in kept]
    kept = [i for i, label in zip(kept, given, strict=True) if given.count(label) >= effects.LEAST]
    if len({labels[i] for i in kept}) < 2:
        return None
    tested = preference_test([str(labels[i]) for i in kept], np.nan_to_num(table[kept]), seed)
    cells = [[value or 0.0 for value in row] for row in tested.cells]
    return Groups(of, by, phase, tested.subjects, tested.counts, cells, tested.marked, tested.p)


def _reinforcement(trace: Trace, beside: Trace, rng: np.random.Generator) -> Reinforcement | None:
    """The same alpha against the falls of both students; None where too few problems were visited twice in both."""
    given = [_at(_fall(source), trace, source) for source in (trace, beside)]
    there = np.isfinite(given[0]) & np.isfinite(
        given[1]
    )  # a path without a fall must not count as one that did not fall
    alpha, *falls = (
        effects.centred(np.where(there, values, np.nan)) for values in (trace.per_problem(trace.alpha), *given)
    )
    known = there.sum(1) >= 2
    if known.sum() < FEWEST or (alpha[known] ** 2).sum() < 1e-12:
        return None
    square = (alpha[known] ** 2).sum(1)
    products = np.stack([(alpha[known] * fall[known]).sum(1) for fall in falls])  # [2, P]
    slopes = products.sum(1) / square.sum()
    drawn = []
    for _ in range(effects.DRAWS):
        chosen = rng.integers(0, len(square), len(square))
        mind, uniform = products[:, chosen].sum(1)
        drawn.append((mind - uniform) / max(square[chosen].sum(), 1e-12))
    low, high = np.quantile(drawn, [0.025, 0.975])
    difference = effects.Estimate(float(slopes[0] - slopes[1]), float(low), float(high))
    return Reinforcement(float(slopes[0]), float(slopes[1]), difference)


def _fall(trace: Trace) -> Floats:
    """Loss at a problem's first reading of each path minus that at its last: [P, K], NaN where it was read once."""
    fall = np.full(trace.valid.shape, np.nan)
    for problem in range(len(trace.lessons)):
        rows = trace.nll[trace.problem == problem]
        for slot in range(len(trace.perspectives)):
            known = rows[np.isfinite(rows[:, slot]), slot]
            if len(known) > 1:
                fall[problem, slot] = known[0] - known[-1]
    return fall


def _notes(trace: Trace, beside: Trace | None, shuffles: int) -> list[str]:
    """What a reader must know of how the numbers came about."""
    notes = [
        "A low loss is a property of a text and its reader together: a path that any reader finds easy is preferred too."
    ]
    if not trace.same_corpus:
        notes.append(
            "That the texts are those learned from could not be checked: the corpus changed, or not all were visited."
        )
    if shuffles:
        notes.append(
            "The retrained MetaNet was warmed up on each problem's first recorded losses, since a run does not keep those of its "
            "untouched student."
        )
    if beside is None:
        notes.append("Without a run of method uniform nothing tells what the student prefers where MetaNet has no say.")
    return notes
