"""What `mind latent` measured, as the page shows it: geometry.json, inclination.json, preference.json (docs/formats.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from mind_distill.report.curves import Figure
from mind_distill.report.figures import draw, shares_table
from mind_distill.report.source import Source
from mind_distill.report.words import clip, figure, fixed, number, numbers, visible

MOST = 40  # rows of a table of one kind; a study has a handful
_STUDENT_MEASURES = ("coverage", "sharpness", "outside", "entropy", "collapse")


class Value(NamedTuple):
    """A number with its 95 % interval; what is not known is None."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def text(self) -> str:
        """0.93 (0.90 to 0.95); a dash where there is no number."""
        if self.value is None or self.low is None or self.high is None:
            return fixed(self.value)
        return f"{fixed(self.value)} ({fixed(self.low)} to {fixed(self.high)})"


class Measure(NamedTuple):
    """One measure of a space: its number, and what chance gives (mean, 95th percentile, p)."""

    name: str
    label: str
    value: Value
    null: float | None
    null_high: float | None
    p: float | None


class Space(NamedTuple):
    """Points in one space: what they are, how the mixture fared, and the measures."""

    title: str
    facts: str
    measures: list[Measure]

    def measure(self, name: str) -> Measure | None:
        return next((found for found in self.measures if found.name == name), None)


class Verdict(NamedTuple):
    """A claim, whether it holds, and why."""

    claim: str
    word: str
    because: str


class Geometry(NamedTuple):
    """The spaces and what was concluded; `rows` are the measures of any space, by name and label."""

    spaces: list[Space]
    verdicts: list[Verdict]

    @property
    def rows(self) -> list[tuple[str, str]]:
        return list(dict.fromkeys((m.name, m.label) for space in self.spaces for m in space.measures))


class Inclination(NamedTuple):
    """A student on a benchmark or one subject of it: weights of the specialists with intervals, and what sums them up."""

    model: str
    benchmark: str
    subject: str
    n: int
    weights: list[Value]
    measures: list[Value]

    @property
    def name(self) -> str:
        return f"{self.model}, {self.subject or self.benchmark} ({self.n})"


class Inclinations(NamedTuple):
    """All rows; `whole` are those of whole benchmarks."""

    perspectives: list[str]
    rows: list[Inclination]

    @property
    def whole(self) -> list[Inclination]:
        return [row for row in self.rows if not row.subject]

    @property
    def parts(self) -> list[Inclination]:
        return [row for row in self.rows if row.subject]

    def figure(self, by_subject: bool = False) -> Figure:
        """The heat map of whole benchmarks, or of subjects; of all rows where there are none of the kind."""
        rows = (self.parts if by_subject else self.whole) or self.rows
        title = "Which specialist the answers lie near" + (", by subject" if by_subject else "")
        names, cells = [row.name for row in rows], [[value.value for value in row.weights] for row in rows]
        small, large = (draw(shares_table(names, self.perspectives, cells, cell), title) for cell in (28, 52))
        return Figure(
            title, f"Mean over the answers; equal shares would be {1 / len(self.perspectives):.2f}.", small, large
        )


def geometry(source: Source) -> Geometry | None:
    """geometry.json, as far as it can be read."""
    values = read(source, "geometry.json")
    if values is None:
        return None
    given = values.get("spaces")
    named = given.items() if isinstance(given, dict) else ()
    spaces = [_space(str(name), space) for name, space in list(named)[:MOST] if isinstance(space, dict)]
    verdicts = [
        Verdict(text(row.get("claim"), 300), _word(row.get("holds")), text(row.get("because"), 1000))
        for row in objects(values.get("verdicts"))
    ]
    if not any(space.measures for space in spaces) and not verdicts:
        source.missing.append("geometry.json holds no measure that can be read.")
        return None
    return Geometry(spaces, verdicts)


def inclinations(source: Source) -> Inclinations | None:
    """inclination.json, as far as it can be read."""
    values = read(source, "inclination.json")
    if values is None:
        return None
    perspectives = texts(values.get("perspectives"))
    rows = [row for given in objects(values.get("rows")) if (row := _inclination(given, len(perspectives))) is not None]
    if not rows:
        source.missing.append("inclination.json holds no row that can be read.")
        return None
    return Inclinations(perspectives, rows)


def read(source: Source, name: str) -> dict[str, Any] | None:
    """The file's values; None if it is not there, or cannot be read, which `source.missing` then says."""
    file = source.run.path / name
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = None
    if isinstance(values, dict):
        return values
    source.missing.append(f"{name} cannot be read.")
    return None


def objects(given: Any) -> Iterator[dict[str, Any]]:
    """The objects of a list, the first few hundred."""
    for row in given[: 10 * MOST] if isinstance(given, list) else []:
        if isinstance(row, dict):
            yield row


def text(given: object, most: int = 120) -> str:
    return visible(clip(str(given if given is not None else ""), most))


def texts(given: object) -> list[str]:
    return [text(item, 60) for item in given[:MOST]] if isinstance(given, list) else []


def value_of(given: object) -> Value:
    """A `{value, low, high}` object, or a bare number."""
    if isinstance(given, dict):
        return Value(*(number(given.get(key)) for key in ("value", "low", "high")))
    return Value(number(given))


def _space(name: str, given: dict[str, Any]) -> Space:
    models = texts(given.get("models"))
    points, active, held_out = (number(given.get(key)) for key in ("points", "active", "held_out"))
    facts = [
        f"{points:,.0f} points" if points is not None else "",
        f"of {len(models)} models" if models else "",
        f"{active:.0f} active components" if active is not None else "",
        {True: "converged", False: "did not converge"}.get(given["converged"], "") if _flag(given, "converged") else "",
        f"held-out log-likelihood {figure(held_out)} a point" if held_out is not None else "",
    ]
    measures = [
        Measure(
            text(row.get("name")),
            text(row.get("label") or row.get("name")),
            value_of(row),
            *(number(row.get(key)) for key in ("null", "null_high", "p")),
        )
        for row in objects(given.get("measures"))
    ]
    return Space(text(given.get("title") or name), ", ".join(fact for fact in facts if fact), measures[:MOST])


def _flag(given: dict[str, Any], key: str) -> bool:
    return isinstance(given.get(key), bool)


def _word(holds: object) -> str:
    return ("holds" if holds else "does not hold") if isinstance(holds, bool) else "cannot be told"


def _inclination(given: dict[str, Any], slots: int) -> Inclination | None:
    lists = [numbers(given.get(key)) for key in ("inclination", "low", "high")]
    if not slots or len(lists[0]) != slots:
        return None
    low, high = (known if len(known) == slots else [None] * slots for known in lists[1:])
    weights = [Value(*ends) for ends in zip(lists[0], low, high, strict=True)]
    return Inclination(
        text(given.get("model"), 60),
        text(given.get("benchmark"), 60),
        text(given.get("subject"), 60).replace("_", " "),
        round(number(given.get("n")) or 0),
        weights,
        [value_of(given.get(key)) for key in _STUDENT_MEASURES],
    )
