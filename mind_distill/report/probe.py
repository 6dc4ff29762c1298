"""MetaNet as a probe on the page (section 5, Figure 8): preference.json as answers, tables and figures."""

from __future__ import annotations

from typing import Any, NamedTuple

from mind_distill.report.curves import Figure
from mind_distill.report.figures import (
    Line,
    Scale,
    Span,
    Values,
    draw,
    lines_over_shifts,
    lines_over_steps,
    shares_table,
)
from mind_distill.report.latent import Value, objects, read, text, texts, value_of
from mind_distill.report.palette import colour
from mind_distill.report.source import Source
from mind_distill.report.words import fixed, number, numbers

MOST_RUNS = 8
_WHOSE = {"alpha": "Mean alpha", "student": "Student's own preference"}


class Row(NamedTuple):
    """A row of a table: its head and its cells as text."""

    name: str
    cells: list[str]


class Answer(NamedTuple):
    """One answer to the paper's question and what it rests on."""

    question: str
    answer: str
    because: str


class Probe(NamedTuple):
    """One MIND run under the probe."""

    run: str
    uniform: str
    facts: str
    answers: list[Answer]
    claims: list[Row]
    measured: list[str]
    perspectives: list[str]
    means: list[Row]
    figures: list[Figure]
    notes: list[str]


def probes(source: Source) -> list[Probe]:
    """The runs of preference.json, as far as they can be read."""
    values = read(source, "preference.json")
    if values is None:
        return []
    found = [_probe(row) for row in list(objects(values.get("runs")))[:MOST_RUNS]]
    if not found:
        source.missing.append("preference.json holds no run that can be read.")
    return found


def _probe(row: dict[str, Any]) -> Probe:
    perspectives = texts(row.get("perspectives"))
    problems, visits, tau = (number(row.get(key)) for key in ("problems", "visits", "tau"))
    return Probe(
        run=text(row.get("run"), 60),
        uniform=text(row.get("uniform"), 60),
        facts=f"{problems or 0:,.0f} problems, {visits or 0:,.0f} visits, tau {fixed(tau)}",
        answers=[
            Answer(*(text(given.get(key), 2000) for key in ("question", "answer", "because")))
            for given in objects(row.get("answers"))
        ],
        claims=[_claim(given) for given in objects(row.get("claims"))],
        measured=_measured(row),
        perspectives=perspectives,
        means=[found for given in objects(row.get("means")) if (found := _means(given, len(perspectives)))],
        figures=[*_over_time(_part(row, "series")), *_lag(_part(row, "lag")), *_heat(row, perspectives)],
        notes=[text(note, 600) for note in row["notes"][:20]] if isinstance(row.get("notes"), list) else [],
    )


def _part(row: dict[str, Any], key: str) -> dict[str, Any]:
    given = row.get(key)
    return given if isinstance(given, dict) else {}


def _p(given: object) -> str:
    known = number(given)
    return "–" if known is None else f"{known:.2g}"


def _claim(given: dict[str, Any]) -> Row:
    kept, shared = _part(given, "kept"), _part(given, "agreement")
    shuffled = Value(number(kept.get("shuffled"))).text
    most = number(kept.get("shuffled_most"))
    cells = [
        Value(number(given.get("strength"))).text,
        _p(given.get("p")),
        Value(number(kept.get("own"))).text,
        f"{shuffled} (at most {fixed(most)})" if most is not None else shuffled,
        _p(kept.get("p")),
        Value(number(given.get("student"))).text,
        _p(given.get("student_p")),
        value_of(shared).text if shared else "–",
        _p(shared.get("p")),
    ]
    return Row(f"by {text(given['by'], 40)}" if given.get("by") else "over all problems", cells)


def _measured(row: dict[str, Any]) -> list[str]:
    """A sentence for each thing that was measured beside the claims."""
    found = []
    shared, steady, behind = _part(row, "agreement"), _part(row, "steadiness"), _part(row, "lag")
    if shared:
        whole = _part(shared, "whole")
        found.append(
            f"rank agreement of MetaNet with the student's losses: {value_of(whole).text}; with scores of other problems, "
            f"that is by the order of the perspectives alone, {fixed(number(shared.get('exchanged')))} (p = {_p(whole.get('p'))}); "
            f"first third {fixed(number(shared.get('first_third')))}, last third {fixed(number(shared.get('last_third')))}"
        )
    if steady:
        first, last, before, after = (
            f"{known:.2g}" if (known := number(steady.get(key))) is not None else "–"
            for key in ("first", "last", "jump_first", "jump_last")
        )
        found.append(
            f"loss of MetaNet: {first} in the first fifth of the steps, {last} in the last; its jumps from step to step {before} "
            f"and {after}"
        )
    if behind:
        steps, low, high = (round(number(behind.get(key)) or 0) for key in ("steps", "low", "high"))
        how = "within problems" if behind.get("within_problems") is True else "between problems as well"
        found.append(
            f"lag of alpha behind the student's losses: {steps} steps ({low} to {high}), correlation there "
            f"{fixed(number(behind.get('correlation')))}, p = {_p(behind.get('p'))}, measured {how}"
        )
    replay, pushed = _part(row, "replay"), _part(row, "reinforcement")
    if replay:
        found.append(
            f"MetaNet trained again from the stored visits: its scores correlate {fixed(number(replay.get('scores')))} with those "
            f"recorded, its alpha {fixed(number(replay.get('alpha')))}; {round(number(replay.get('shuffles')) or 0)} times on "
            "shuffled feedback of each kind"
        )
    if pushed:
        found.append(
            f"fall of a path's loss a unit of alpha: {fixed(number(pushed.get('mind')))} nats with MetaNet, "
            f"{fixed(number(pushed.get('uniform')))} under uniform weights; difference {value_of(pushed.get('difference')).text}"
        )
    return found


def _means(given: dict[str, Any], slots: int) -> Row | None:
    value, low, high = (numbers(given.get(key)) for key in ("value", "low", "high"))
    if not slots or not len(value) == len(low) == len(high) == slots:
        return None
    whose = _WHOSE.get(str(given.get("of")), text(given.get("of"), 40))
    phase = text(given.get("phase"), 40)
    return Row(
        f"{whose}, {phase if phase != 'all' else 'all visits'}",
        [Value(*v).text for v in zip(value, low, high, strict=True)],
    )


def _over_time(series: dict[str, Any]) -> list[Figure]:
    """Student's loss, MetaNet's loss and rank agreement over the same steps."""
    ends = series.get("steps")
    pairs = [numbers(pair) for pair in ends] if isinstance(ends, list) else []
    spans = [
        Span(int(pair[0]), int(pair[1]))
        for pair in pairs
        if len(pair) == 2 and pair[0] is not None and pair[1] is not None
    ]
    found = []
    for key, title, note in (
        ("student", "Loss of the student", "Weighted by alpha (equation 2), over the steps."),
        ("metanet", "Loss of MetaNet", "How far its ranking is from the student's losses (equation 1)."),
        ("rank", "Rank agreement", "Spearman's rho of scores and minus the losses, mean over visits."),
    ):
        values: Values = numbers(series.get(key))
        if spans and len(values) == len(spans) == len(pairs) and any(value is not None for value in values):
            line = Line(title, colour("accent"), values)
            scale = Scale((min(0.0, *(v for v in values if v is not None)), 1)) if key == "rank" else Scale()
            found.append(Figure(title, note, draw(lines_over_steps([line], spans, scale=scale), title)))
    return found


def _lag(given: dict[str, Any]) -> list[Figure]:
    """Correlation of alpha with the student's preference of so many steps before."""
    shifts, values = numbers(given.get("shifts")), numbers(given.get("correlations"))
    known = [(s, v) for s, v in zip(shifts, values, strict=False) if s is not None and v is not None]
    if len(known) < 3:
        return []
    title = "Who follows whom"
    note = "Correlation of alpha with the weights that the student's losses ask for, so many steps before. Right of 0 MetaNet follows."
    chart = lines_over_shifts(known, number(given.get("steps")) or 0.0)
    return [Figure(title, note, draw(chart, title))]


def _heat(row: dict[str, Any], perspectives: list[str]) -> list[Figure]:
    """Weights by subject and by level, with what the permutation test says."""
    found = []
    for given in objects(row.get("groups")):
        names, cells, counts = texts(given.get("names")), _table(given.get("cells")), numbers(given.get("counts"))
        shape = [len(perspectives)] * len(names)
        if not names or not perspectives or [len(line) for line in cells] != shape or len(counts) != len(names):
            continue
        heads = [f"{name} ({count or 0:.0f})" for name, count in zip(names, counts, strict=True)]
        flags = given.get("marked")
        marked = (
            [[cell is True for cell in line] for line in flags if isinstance(line, list)]
            if isinstance(flags, list)
            else []
        )
        marked = marked if [len(line) for line in marked] == shape else []
        phase, whose = text(given.get("phase"), 40), _WHOSE.get(str(given.get("of")), "")
        title = f"{whose} by {text(given.get('by'), 40)}" + (f", {phase}" if phase != "all" else "")
        note = f"Permutation test over relabelled problems: p = {_p(given.get('p'))}. A star stands out after correction for all cells."
        small, large = (draw(shares_table(heads, perspectives, cells, cell, marked), title) for cell in (28, 52))
        found.append(Figure(title, note, small, large))
    return found


def _table(given: object) -> list[list[float | None]]:
    return [numbers(line) for line in given] if isinstance(given, list) else []
