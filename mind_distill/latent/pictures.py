"""Maps of the spaces as files (docs/formats.md): the specialists, the texts, and each student placed among the specialists."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mind_distill.latent.maps import MapSettings, fit_map
from mind_distill.latent.spaces import TITLES, Floats, Space
from mind_distill.latent.states import Point
from mind_distill.runs import publish

FORMAT = 1
FILES = {
    "states": "map.json",
    "teacher-centred": "map-text.json",
    "teacher": "map-text-raw.json",
    "text": "map-own-text.json",
    "same-text": "map-same-text.json",
    "seed": "map-seed.json",
}
LONGEST = 240  # characters of a text that a map keeps; the page shows no more


def write_map(space: Space, folder: Path, settings: MapSettings, seed: int) -> None:
    """The map of one space."""
    found = fit_map(space.z, settings, seed)
    rows = points_of(
        found.xy, space.points, space.named(), "teacher" if space.key.startswith("teacher") else "specialists"
    )
    _write(folder / FILES[space.key], TITLES[space.key], found.note, space.names, rows)


def write_students(
    space: Space,
    students: dict[str, tuple[Floats, list[Point], list[str]]],
    folder: Path,
    settings: MapSettings,
    seed: int,
) -> None:
    """map.json, and a map for each student: its places in z, its points and the names of the nearest perspectives."""
    found = fit_map(space.z, settings, seed, [z for z, _, _ in students.values()])
    field = points_of(found.xy, space.points, space.named(), "specialists")
    _write(folder / FILES["states"], TITLES["states"], found.note, space.names, field)
    for (name, (_, points, nearest)), xy in zip(students.items(), found.placed, strict=True):
        note = f"{found.note} Larger points: answers of {name}, coloured by the nearest perspective in z, not on the picture."
        own = points_of(xy, points, nearest, name)
        _write(folder / f"map-student-{name}.json", f"{name} among the specialists", note, space.names, field + own)
    for stale in folder.glob("map-student-*.json"):
        if stale.name.removeprefix("map-student-").removesuffix(".json") not in students:
            stale.unlink()


def points_of(xy: Floats, points: Sequence[Point], labels: Sequence[str], run: str) -> list[dict[str, Any]]:
    """The points as a map's file holds them."""
    return [
        {
            "x": round(float(x), 4),
            "y": round(float(y), 4),
            "label": label,
            "id": p.id,
            "question": p.question[:LONGEST],
            "text": p.text[:LONGEST],
            "run": run,
        }
        for (x, y), p, label in zip(np.asarray(xy), points, labels, strict=True)
    ]


def _write(file: Path, title: str, note: str, labels: Sequence[str], points: list[dict[str, Any]]) -> None:
    values = {"format": FORMAT, "title": title, "note": note, "labels": list(labels), "points": points}
    publish(file, json.dumps(values, ensure_ascii=True, allow_nan=False) + "\n")


def write_figures(folder: Path, students: Sequence[str]) -> None:
    """Figures 4 and 5 for papers, as SVG and PNG in `figures/`: Figure 5 sets the first student beside each further one."""
    from mind_distill.report.paper import figure_4, figure_5, save

    charts = {}
    if (folder / "map-text.json").is_file():
        charts["figure-4"] = figure_4(folder / "map-text.json", folder / "map.json")
    maps = {name: folder / f"map-student-{name}.json" for name in students}
    shown = [name for name, file in maps.items() if file.is_file()]
    for other in shown[1:]:
        charts[f"figure-5-{other}"] = figure_5(maps[shown[0]], maps[other])
    for name, chart in charts.items():
        for kind in ("svg", "png"):
            save(chart, folder / "figures" / f"{name}.{kind}")
