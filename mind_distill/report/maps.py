"""Maps of points beside a run (map*.json, docs/formats.md): drawn as plain circles, each linked to its problem."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from mind_distill.report.palette import SLOTS
from mind_distill.report.source import Source
from mind_distill.report.words import clip, number, visible

MAX_POINTS = 3000  # of one map on the page; of more, evenly many
MAX_TEXT = 240  # characters of a point's text
SIZE, MARGIN, RADIUS = 640, 12, 3.2


class Point(NamedTuple):
    """A point: its place in the drawing, the number of its label, and what it stands for."""

    x: float
    y: float
    label: int
    id: str
    question: str
    text: str
    run: str


class Map(NamedTuple):
    """A map: its labels in the order of their colours, the points shown, and how many there are in all."""

    title: str
    note: str
    labels: list[str]
    runs: list[str]
    points: list[Point]
    total: int
    height: float

    @property
    def drawing(self) -> Markup:
        """The circles; the n-th belongs to the n-th point of the list beside it."""
        shape = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}" class="p{}" data-i="{}"/>')
        several = len(self.runs) > 1
        circles = Markup("").join(
            shape.format(p.x, p.y, RADIUS + (1.6 if several and p.run == self.runs[-1] else 0), p.label % len(SLOTS), i)
            for i, p in enumerate(self.points)
        )
        return Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">{}</svg>').format(
            SIZE, self.height, self.title, circles
        )


def maps(source: Source) -> list[Map]:
    """Every map of a folder: map.json and map-*.json, in the order of their names."""
    return [
        found for file in sorted(source.run.path.glob("map*.json")) if (found := read_map(file, source)) is not None
    ]


def read_map(file: Path, source: Source | None = None) -> Map | None:
    """One map; None if no point can be read, and `source.missing` says so."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        rows = list(_rows(values.get("points")))
    except (OSError, ValueError, AttributeError):
        values, rows = {}, []
    if not rows:
        if source is not None:
            source.missing.append(f"{file.name} holds no point that can be read.")
        return None
    given = values.get("labels")
    known = [str(name) for name in given] if isinstance(given, list) else []
    labels = list(dict.fromkeys([*known, *(str(row.get("label", "")) for row in rows)]))
    runs = list(dict.fromkeys(str(row.get("run") or "") for row in rows))
    shown = rows if len(rows) <= MAX_POINTS else [rows[i * len(rows) // MAX_POINTS] for i in range(MAX_POINTS)]
    points = _placed(shown, labels)
    title, note = (visible(str(values.get(key) or "")) for key in ("title", "note"))
    return Map(
        clip(title or "Map", 120),
        clip(note, 600),
        [visible(clip(label, 60)) for label in labels],
        [visible(clip(run, 60)) for run in runs],
        points,
        len(rows),
        max(point.y for point in points) + MARGIN,
    )


def _rows(given: Any) -> Iterator[dict[str, Any]]:
    for row in given if isinstance(given, list) else []:
        if isinstance(row, dict) and number(row.get("x")) is not None and number(row.get("y")) is not None:
            yield row


def _placed(rows: list[dict[str, Any]], labels: list[str]) -> list[Point]:
    """The points on the drawing, both axes to one scale: distances on a map mean the same in every direction."""
    xs, ys = ([float(row[axis]) for row in rows] for axis in ("x", "y"))
    reach = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = (SIZE - 2 * MARGIN) / reach
    left, top = (SIZE - scale * (max(xs) + min(xs))) / 2, MARGIN + scale * max(ys)
    place = {label: i for i, label in enumerate(labels)}
    return [
        Point(
            left + scale * x,
            top - scale * y,
            place[str(row.get("label", ""))],
            visible(clip(str(row.get("id") or ""), 200)),
            visible(clip(" ".join(str(row.get("question") or "").split()), MAX_TEXT)),
            visible(clip(" ".join(str(row.get("text") or "").split()), MAX_TEXT)),
            visible(clip(str(row.get("run") or ""), 60)),
        )
        for row, x, y in zip(rows, xs, ys, strict=True)
    ]
