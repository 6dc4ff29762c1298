"""Figures as Altair charts, and `draw`, which turns one into an SVG that takes its colours from the page.

Static on purpose: they show without scripts, in a mail preview and on paper, and the page needs no evaluation of code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import altair as alt
import vl_convert
from markupsafe import Markup, escape

from mind_distill.report.palette import colour, slot_colour
from mind_distill.report.words import figure, visible

NARROW, WIDE, HEIGHT = 286, 640, 150  # plot areas in px; NARROW with its axis fits a phone
FEW = 30  # up to so many points each is marked, so that a single one is seen
Values = Sequence[float | None]
Events = Mapping[int, str]  # what fired, by step
NONE: Events = {}
_IDLE = re.compile(
    r' (?:role="graphics-[^"]*"|aria-roledescription="[^"]*"|aria-hidden="[^"]*"|font-family="[^"]*"|opacity="1")'
)


class Span(NamedTuple):
    """The steps that one point of a figure stands for."""

    first: int
    last: int

    @property
    def middle(self) -> float:
        return (self.first + self.last) / 2

    @property
    def name(self) -> str:
        return f"step {self.first}" if self.first == self.last else f"steps {self.first}–{self.last}"


class Line(NamedTuple):
    """One series of a figure: its name, its colour, and a value a span."""

    name: str
    colour: str
    values: Values


class Scale(NamedTuple):
    """The vertical axis: a fixed range, or a logarithmic one; by default the range of the data."""

    domain: tuple[float, float] | None = None
    log: bool = False


def lines_over_steps(
    lines: Sequence[Line], spans: Sequence[Span], events: Events = NONE, scale: Scale | None = None
) -> alt.LayerChart:
    """Lines over student steps, dashed rules where events fired, and a band a span that carries its numbers as text."""
    scale = scale or Scale()
    rows = [
        {"x": span.middle, "y": value, "name": line.name}
        for line in lines
        for span, value in zip(spans, line.values, strict=True)
        if value is not None
    ]
    domain = scale.domain or _around([row["y"] for row in rows if isinstance(row["y"], float)])
    y_scale: dict[str, Any] = {"domain": list(domain)} if domain else {"zero": False, "nice": True}
    if scale.log:
        y_scale["type"] = "log"
    names, colours = [line.name for line in lines], [line.colour for line in lines]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=_steps(spans),
        y=alt.Y("y:Q", title=None, scale=alt.Scale(**y_scale), axis=alt.Axis(tickCount=5)),
        color=alt.Color("name:N", legend=None, scale=alt.Scale(domain=names, range=colours)),
    )
    layers = [base.mark_line(strokeWidth=1.8), _event_rules(events)]
    if len(spans) <= FEW:
        layers.append(base.mark_point(filled=True, size=22, opacity=1))
    layers.append(_bands(lines, spans, events))
    return alt.layer(*layers).properties(width=NARROW, height=HEIGHT)


def _around(values: Sequence[float]) -> tuple[float, float] | None:
    """A range around values that are all but equal, which would stand on an axis without a readable number."""
    low, high = min(values), max(values)
    if high - low > 1e-6 * max(abs(low), abs(high)):
        return None
    return (low / 2, low * 1.5) if low > 0 else (low - 1, low + 1)


def shares_over_steps(
    lines: Sequence[Line], spans: Sequence[Span], events: Events = NONE, width: int = NARROW
) -> alt.LayerChart:
    """Shares stacked to 1: a step a span, so that a single one is a column and nothing is drawn between measurements."""
    rows = []
    for i, span in enumerate(spans):
        low = 0.0
        for k, line in enumerate(lines):
            high = low + (line.values[i] or 0.0)
            rows += [{"x": span.first - 0.5, "k": k, "low": low, "high": high}]
            if i == len(spans) - 1:  # the last step needs an end, or it has no width
                rows += [{"x": span.last + 0.5, "k": k, "low": low, "high": high}]
            low = high
    areas = (
        alt.Chart(alt.Data(values=rows))
        .mark_area(interpolate="step-after", stroke=colour("card"), strokeWidth=0.8, opacity=1)
        .encode(
            x=_steps(spans),
            y=alt.Y("low:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%", tickCount=5)),
            y2="high:Q",
            color=alt.Color(
                "k:N",
                legend=None,
                scale=alt.Scale(domain=list(range(len(lines))), range=[line.colour for line in lines]),
            ),
        )
    )
    layers = [areas, _event_rules(events), _bands(lines, spans, events, 2)]
    return alt.layer(*layers).properties(width=width, height=HEIGHT + (50 if width == WIDE else 20))


def _steps(spans: Sequence[Span]) -> alt.X:
    ends = [spans[0].first - 0.5, spans[-1].last + 0.5]
    few = spans[-1].last - spans[0].first < 8
    ticks = alt.Axis(values=[span.first for span in spans], format="d") if few else alt.Axis(tickCount=6, format="d")
    return alt.X("x:Q", title="student step", scale=alt.Scale(domain=ends, nice=False), axis=ticks)


def _event_rules(events: Events) -> alt.Chart:
    rows = [{"x": step} for step in sorted(events)]
    rule = alt.Chart(alt.Data(values=rows)).mark_rule(strokeDash=[3, 3], color=colour("loss"), strokeWidth=1.2)
    return rule.encode(x="x:Q")


def _bands(lines: Sequence[Line], spans: Sequence[Span], events: Events, decimals: int | None = None) -> alt.Chart:
    """What a pointer or an arrow key reads: a transparent rectangle a span, its numbers and events as text."""
    rows = []
    for i, span in enumerate(spans):
        known = [(line.name, line.values[i]) for line in lines]
        said = [
            f"{name}: {figure(v) if decimals is None else f'{v:.{decimals}f}'}" for name, v in known if v is not None
        ]
        said += [f"{events[step]} (step {step})" for step in sorted(events) if span.first <= step <= span.last]
        if said:
            rows.append({"a": span.first - 0.5, "b": span.last + 0.5, "said": "\n".join([span.name, *said])})
    bands = alt.Chart(alt.Data(values=rows), name="bands").mark_rect(opacity=0, color=colour("ink"), aria=True)
    return bands.encode(x="a:Q", x2="b:Q", description="said:N")


class Interval(NamedTuple):
    """A share with its interval."""

    name: str
    share: float
    low: float
    high: float
    trained: bool


def intervals(rows: Sequence[Interval]) -> alt.LayerChart:
    """Shares as dots on their 95 % intervals, one under the other in the given order."""
    values = [
        {**row._asdict(), "name": visible(row.name), "hue": colour("accent" if row.trained else "muted")}
        for row in rows
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=_names(row.name for row in rows)),
        color=alt.Color("hue:N", scale=None),
    )
    top = min(1.0, max(row.high for row in rows) * 1.15 + 0.02)
    x = alt.X(
        "low:Q",
        title="right answers",
        scale=alt.Scale(domain=[0, top], nice=False),
        axis=alt.Axis(format="%", tickCount=3),
    )
    rule = base.mark_rule(strokeWidth=5, opacity=0.45, strokeCap="round").encode(x=x, x2="high:Q")
    dot = base.mark_point(filled=True, size=110, opacity=1).encode(x="share:Q")
    return alt.layer(rule, dot).properties(width=NARROW - 110, height=34 * len(rows))


def before_and_after(names: Sequence[str], first: Values, last: Values) -> alt.LayerChart:
    """A line a perspective from its first (hollow) to its last (full) value."""
    rows = [
        {"name": name, "first": a, "last": b, "hue": slot_colour(k)}
        for k, (name, a, b) in enumerate(zip(names, first, last, strict=True))
        if a is not None and b is not None
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("name:N", sort=None, title=None, axis=_names(names)),
        color=alt.Color("hue:N", scale=None),
    )
    scale = alt.Scale(zero=False, nice=True, padding=8)
    rule = base.mark_rule(strokeWidth=2.5).encode(x=alt.X("first:Q", title="loss", scale=scale), x2="last:Q")
    hollow = base.mark_point(size=70, fill=colour("card"), strokeWidth=2, opacity=1).encode(x="first:Q")
    full = base.mark_point(filled=True, size=85, opacity=1).encode(x="last:Q")
    return alt.layer(rule, hollow, full).properties(width=NARROW - 80, height=24 * len(rows))


def shares_table(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Sequence[Values],
    cell: int = 26,
    marked: Sequence[Sequence[bool]] = (),
) -> alt.LayerChart:
    """A heat map of shares with the number in each cell, which is `cell` px wide; marked cells carry a star."""
    values = [
        {"row": visible(name), "column": heading, "value": value, "said": f"{value:.2f}{'*' * star}"}
        for name, line, stars in zip(rows, cells, marked or [[False] * len(columns)] * len(rows), strict=True)
        for heading, value, star in zip(columns, line, stars, strict=True)
        if value is not None
    ]
    top = max([value for line in cells for value in line if value is not None], default=1.0) or 1.0
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X("column:N", sort=None, title=None, axis=alt.Axis(labelAngle=-40, ticks=False, domain=False)),
        y=alt.Y("row:N", sort=None, title=None, axis=_names(rows, 110 if cell < 40 else 190)),
    )
    depth = alt.Opacity("value:Q", legend=None, scale=alt.Scale(domain=[0, top], range=[0.04, 0.62]))
    squares = base.mark_rect(color=colour("accent"), stroke=colour("card"), strokeWidth=1).encode(opacity=depth)
    texts = base.mark_text(color=colour("ink"), fontSize=10 if cell > 40 else 9).encode(text="said:N")
    return alt.layer(squares, texts).properties(width=cell * len(columns), height=26 * len(rows))


def lines_over_shifts(values: Sequence[tuple[float, float]], best: float) -> alt.LayerChart:
    """A correlation over shifts in time, with rules at no shift and, dashed, at the best one; a band a shift says its number."""
    rows = [{"x": shift, "y": value} for shift, value in values]
    size = values[1][0] - values[0][0]
    bands = [
        {"a": row["x"] - size / 2, "b": row["x"] + size / 2, "said": f"shift {row['x']:g}\ncorrelation: {row['y']:.2f}"}
        for row in rows
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("x:Q", title="steps that alpha is behind", axis=alt.Axis(tickCount=6, format="d")),
        y=alt.Y("y:Q", title=None, axis=alt.Axis(tickCount=5)),
    )
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(color=colour("line"), strokeWidth=1.2).encode(x="x:Q")
    layers = [
        zero,
        base.mark_line(strokeWidth=1.8, color=colour("accent")),
        base.mark_point(filled=True, size=22, opacity=1, color=colour("accent")),
        _event_rules({round(best): "best"}),
        alt.Chart(alt.Data(values=bands), name="bands")
        .mark_rect(opacity=0, color=colour("ink"), aria=True)
        .encode(x="a:Q", x2="b:Q", description="said:N"),
    ]
    return alt.layer(*layers).properties(width=NARROW, height=HEIGHT)


def _names(names: Iterable[str], most: int = 190) -> alt.Axis:
    """An axis of names with room for the widest: the reader's font is not the one that Vega measures with."""
    room = min(most, 7 * max(len(name) for name in names))
    return alt.Axis(ticks=False, domain=False, labelLimit=room, minExtent=round(room * 1.15))


def draw(chart: alt.LayerChart, title: str) -> Markup:
    """The chart as inline SVG. Vega escapes the texts in it; the title is escaped here."""
    ink, line = colour("muted"), colour("line")
    axis = alt.AxisConfig(
        labelColor=ink, titleColor=ink, gridColor=line, domainColor=line, tickColor=line, titleFontWeight="normal",
        labelFontSize=11, titleFontSize=11, gridOpacity=0.7, aria=False,
    )  # fmt: skip
    styled = chart.configure(
        background="transparent",
        font="system-ui, sans-serif",
        axis=axis,
        axisX=alt.AxisConfig(grid=False, domainColor=ink, tickColor=ink),
        view=alt.ViewConfig(stroke=None),
        mark=alt.MarkConfig(aria=False),
    )
    # Altair has checked each part as it was made; checking the whole again would take half of the time.
    svg = _svg(json.dumps(styled.to_dict(validate=False)))
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(visible(title))}" ', 1))


@lru_cache(maxsize=128)
def _svg(specification: str) -> str:
    """The drawing; kept, because a page that is drawn anew while a run trains repeats most of its figures."""
    svg: str = vl_convert.vegalite_to_svg(specification)
    # Each mark claims a role of its own; here the drawing is one image, and its bands carry their text for the page's script.
    return _IDLE.sub("", svg).replace(' aria-label="', ' data-said="')
