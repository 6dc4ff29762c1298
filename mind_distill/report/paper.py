"""The figures of the paper as functions of run files (Figures 4 to 8), as charts that `save` writes to SVG, PDF or PNG.

Each takes what the paper's own would need; where the runs do not hold it, a UserError says what is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import vl_convert

from mind_distill.errors import UserError
from mind_distill.report.curves import by_span, means, slot_means, spans_of, steps_of
from mind_distill.report.maps import Map, read_map
from mind_distill.report.palette import LIGHT, SLOTS
from mind_distill.report.results import base_and_trained, benchmarks
from mind_distill.report.side_by_side import unique_names
from mind_distill.report.source import Source, open_run
from mind_distill.report.subjects import Preferences, preferences
from mind_distill.report.words import mean, number, numbers
from mind_distill.runs import publish

WIDTH, HEIGHT = 300, 200  # px of one panel; two fit the width of a text column
SMOOTH = 0.05  # share of the steps that the moving average of Figure 7 spans
FORMATS = ("svg", "pdf", "png")
_SHARES = ["#f4f8f9", "#6aa7b5"]  # light enough for black numbers throughout
_SIGNED = ["#82aad6", "#ffffff", "#e3a26c"]


def load(path: str | Path) -> Source:
    """A run directory as the figures take it."""
    return Source(open_run(path))


def figure_4(text_map: Path, state_map: Path) -> alt.ConcatChart:
    """Figures 4c and 4d: the teacher's texts, and the latent space of the specialists (two maps, docs/formats.md)."""
    panels = [_scatter(_map(file), title) for file, title in ((text_map, "(c)"), (state_map, "(d)"))]
    return _side_by_side(panels)


def figure_5(plain: Path, mind: Path) -> alt.ConcatChart:
    """Figure 5: where two students stand among the specialists, each a map whose last `run` is the student shown."""
    return _side_by_side([_scatter(_map(plain), "(a)", True), _scatter(_map(mind), "(b)", True)])


def figure_6(runs: Sequence[Source], labels: Sequence[str] | None = None) -> alt.ConcatChart:
    """Figure 6: accuracy of each variant with 95 % intervals, a panel a benchmark; runs in the order given."""
    names = list(labels or [run.name for run in runs])
    rows: list[dict[str, Any]] = []
    for name, run in zip(names, runs, strict=True):
        for benchmark in benchmarks(run):
            _, trained = base_and_trained(benchmark.rows)
            for row in benchmark.rows:
                if row.label == trained:
                    score = row.score
                    rows.append({"variant": name, "benchmark": benchmark.name, "n": score.n, "accuracy": score.accuracy,
                                 "low": score.low, "high": score.high})  # fmt: skip
    if not rows:
        raise UserError("Figure 6 needs runs whose trained student was evaluated (evaluations/final or /after).")
    panels = []
    for asked in dict.fromkeys(row["benchmark"] for row in rows):
        own = [row for row in rows if row["benchmark"] == asked]
        top = min(1.0, 1.08 * max(row["high"] for row in own))
        base = alt.Chart(alt.Data(values=own)).encode(
            x=alt.X("variant:N", sort=names, title=None, axis=alt.Axis(labelAngle=-30))
        )
        y = alt.Y(
            "accuracy:Q",
            title="right answers",
            scale=alt.Scale(domain=[0, top], nice=False),
            axis=alt.Axis(format="%", tickCount=5),
        )
        bars = base.mark_bar(color=LIGHT["accent"], opacity=0.75).encode(y=y)
        rule = base.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q")
        title = f"{asked} (n = {min(row['n'] for row in own)})"
        panels.append(alt.layer(bars, rule).properties(width=44 * len(own), height=HEIGHT, title=title))
    return _side_by_side(panels)


def figure_7(inertia: Sequence[Source], synergy: Sequence[Source]) -> alt.ConcatChart:
    """Figure 7: smoothed training loss of the full method and its ablations; (a) without inertia, (b) without synergy.

    The loss is weighted by each variant's own alpha, so levels are not comparable between variants; shapes are. `figure_7_probe`
    draws what is comparable.
    """
    panels = [_losses(runs, title) for runs, title in ((inertia, "(a) inertia"), (synergy, "(b) synergy")) if runs]
    if not panels:
        raise UserError("Figure 7 needs at least one run.")
    return _side_by_side(panels)


def figure_7_probe(runs: Sequence[Source]) -> alt.ConcatChart:
    """Beside Figure 7: mean loss of all perspectives, weighted equally, on lessons never trained."""
    rows = []
    for run in runs:
        for line in run.probe:
            step, loss = number(line.get("step")), mean(numbers(line.get("nll")))
            if step is not None and loss is not None:
                rows.append({"step": step, "loss": loss, "run": run.name})
    if not rows:
        raise UserError("No run holds a probe (corpus.probe is 0).")
    return _side_by_side([_lines(rows, [run.name for run in runs], "loss on lessons never trained", points=True)])


class Lag(NamedTuple):
    """The shift at which MetaNet's weights follow the student's losses best, in steps, and the correlation there."""

    steps: int
    correlation: float


def lag(run: Source, most: int = 20) -> Lag | None:
    """How many steps alpha lags behind softmax(-loss / tau) of the same perspectives; None if too little is recorded."""
    steps = steps_of(run.metrics)
    if len(steps) < 3 * 4:
        return None
    spans = spans_of(min(steps), max(steps))
    alpha = np.array(slot_means(by_span(run.metrics, spans), "alpha", run.slots), dtype=float)
    losses = np.array(slot_means(by_span(run.visits, spans), "nll", run.slots), dtype=float)
    tau = next((v for v in means([run.metrics], "tau") if v), None) or 0.25
    real = np.exp(-(losses - np.nanmin(losses, axis=0)) / tau)
    real = real / real.sum(0)
    kept = np.isfinite(alpha).all(0) & np.isfinite(real).all(0)
    alpha, real = alpha[:, kept], real[:, kept]
    best: Lag | None = None
    for shift in range(min(most, alpha.shape[1] // 3) + 1):
        one = alpha[:, shift:] - alpha[:, shift:].mean(1, keepdims=True)
        other = real[:, : real.shape[1] - shift] - real[:, : real.shape[1] - shift].mean(1, keepdims=True)
        scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
        found = float((one * other).sum() / scale) if scale > 1e-12 else 0.0
        if best is None or found > best.correlation + 1e-9:
            best = Lag(shift * (spans[0].last - spans[0].first + 1), found)
    return best


def figure_8(run: Source, uniform: Source | None = None) -> alt.ConcatChart:
    """Figure 8: (a) the losses of student and MetaNet with their rank agreement, (b) mean alpha a subject.

    Whether a preference is the student's own shows beside it: losses of a run with uniform weights, where MetaNet had no say.
    """
    rows = [
        {"step": step, "value": value, "name": name}
        for key, name in (("sft", "student's loss"), ("meta", "MetaNet's loss"), ("rank", "rank agreement"))
        for step, value in _recorded(run, key)
    ]
    if not rows:
        raise UserError(f"{run.name} holds no training step, so there is no Figure 8.")
    behind = lag(run)
    told = f"lag {behind.steps} steps (r = {behind.correlation:.2f})" if behind else ""
    panels: list[Any] = [_stacked(rows, f"(a) {told}".strip())]
    found = preferences(run)
    if found:
        panels.append(_heat(found, run.perspectives, f"(b) mean alpha; permutation test p = {found.p:.2g}"))
    own = preferences(uniform, "nll") if uniform else None
    if uniform and own:
        relative = own._replace(cells=[_relative(row) for row in own.cells])
        panels.append(
            _heat(relative, uniform.perspectives, f"(c) loss under uniform weights, against the subject's mean; p = {own.p:.2g}", True)
        )  # fmt: skip
    return _side_by_side(panels)


def save(chart: Any, path: str | Path) -> Path:
    """Write a figure to .svg, .pdf or .png, whole or not at all."""
    target = Path(path)
    kind = target.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise UserError(f"{target}: a figure ends in .svg, .pdf or .png.")
    specification = json.loads(json.dumps(chart.to_dict(validate=False)))
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "svg":
        publish(target, vl_convert.vegalite_to_svg(specification))
    elif kind == "pdf":
        publish(target, vl_convert.vegalite_to_pdf(specification))
    else:
        publish(target, vl_convert.vegalite_to_png(specification, scale=2))
    return target


class Written(NamedTuple):
    """The files of the figures that could be drawn, and a sentence for each that could not."""

    files: list[Path]
    missing: list[str]


def write_all(runs: Sequence[Source], folder: Path) -> Written:
    """Every figure that these runs hold, each as SVG and PDF; runs are compared in the order given, the full method first."""
    trained = [run for run in runs if run.metrics]
    mapped = {file.name: file for run in runs for file in sorted(run.run.path.glob("map*.json"))}
    students = _students(mapped, runs)
    several = trained if len(trained) > 1 else []
    wanted: list[tuple[str, Callable[[], Any]]] = [
        ("figure-4", lambda: figure_4(_named(mapped, "map-text.json"), _named(mapped, "map.json"))),
        ("figure-5", lambda: figure_5(*_two(students))),
        ("figure-6", lambda: figure_6(_several(several))),
        ("figure-7", lambda: figure_7(_several(several), [])),
        ("figure-7-probe", lambda: figure_7_probe(_several(several))),
    ]
    named = zip(unique_names(trained), trained, strict=True)
    alone = next((run for run in trained if run.setting("method.name") == "uniform"), None)
    wanted += [
        (f"figure-8-{safe_name(name)}", partial(figure_8, run, None if run is alone else alone)) for name, run in named
    ]
    files: list[Path] = []
    missing: list[str] = []
    for name, make in wanted:
        try:
            chart = make()
        except UserError as fault:
            missing.append(f"{name}: {fault}")
            continue
        files += [save(chart, folder / f"{name}.{kind}") for kind in ("svg", "pdf")]
    return Written(files, missing)


def _students(mapped: Mapping[str, Path], runs: Sequence[Source]) -> list[Path]:
    """The students' maps in the order of the study that made them (models.json), the plain student first; else by name."""
    order: list[str] = []
    for run in runs:
        with suppress(OSError, ValueError, KeyError, TypeError):
            roster = json.loads((run.run.path / "models.json").read_text(encoding="utf-8"))["models"]
            order += [f"map-student-{model['name']}.json" for model in roster if model["role"] == "compare"]
    names = [name for name in mapped if name.startswith("map-student-")]
    return [mapped[name] for name in sorted(names, key=lambda name: order.index(name) if name in order else len(order))]


def safe_name(name: str) -> str:
    """A run's name as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:80].strip(".") or "run"


def _named(mapped: Mapping[str, Path], name: str) -> Path:
    if name not in mapped:
        raise UserError(f"no run holds {name} (docs/formats.md).")
    return mapped[name]


def _two(students: Sequence[Path]) -> tuple[Path, Path]:
    if len(students) < 2:
        raise UserError("no run holds two map-student-*.json (docs/formats.md).")
    return students[0], students[1]


def _several(runs: Sequence[Source]) -> Sequence[Source]:
    if not runs:
        raise UserError("it compares runs; give two or more that took steps.")
    return runs


def _map(file: Path) -> Map:
    found = read_map(Path(file))
    if found is None:
        raise UserError(f"{file} is no map with points (docs/formats.md).")
    return found


def _scatter(found: Map, title: str, student: bool = False) -> alt.LayerChart:
    last = found.runs[-1] if student and len(found.runs) > 1 else None
    rows = [{"x": p.x, "y": -p.y, "label": found.labels[p.label], "own": p.run == last} for p in found.points]
    colour = alt.Color(
        "label:N",
        title=None,
        scale=alt.Scale(domain=found.labels, range=[SLOTS[i % len(SLOTS)] for i in range(len(found.labels))]),
    )
    axis = {"axis": None, "scale": alt.Scale(zero=False)}
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("x:Q", **axis), y=alt.Y("y:Q", **axis))
    field = base.transform_filter("!datum.own").mark_point(filled=True, size=14, opacity=0.35 if last else 0.8)
    own = base.transform_filter("datum.own").mark_point(filled=True, size=30, color=LIGHT["ink"], opacity=0.9)
    shown = f"{title} {found.title}" + (f": {last}" if last and last not in found.title else "")
    return alt.layer(field.encode(color=colour), own).properties(width=WIDTH, height=WIDTH, title=shown)


def _recorded(run: Source, key: str) -> list[tuple[float, float]]:
    """Step and value of every line of metrics.jsonl that holds both."""
    pairs = [(number(line.get("step")), number(line.get(key))) for line in run.metrics]
    return [(step, value) for step, value in pairs if step is not None and value is not None]


def _losses(runs: Sequence[Source], title: str) -> Any:
    rows = []
    for run in runs:
        known = _recorded(run, "sft")
        width = max(1, round(SMOOTH * len(known)))
        values = [value for _, value in known]
        for i, (step, _) in enumerate(known):
            window = values[max(0, i + 1 - width) : i + 1]
            rows.append({"step": step, "loss": sum(window) / len(window), "run": run.name})
    if not rows:
        raise UserError("None of these runs holds a training step.")
    return _lines(rows, [run.name for run in runs], f"{title}: training loss, moving average")


def _lines(rows: list[dict[str, Any]], names: list[str], title: str, points: bool = False) -> Any:
    scale = alt.Scale(domain=names, range=[SLOTS[i % len(SLOTS)] for i in range(len(names))])
    chart = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=1.6, point=points)
    return chart.encode(
        x=alt.X("step:Q", title="student step"),
        y=alt.Y("loss:Q", title=None, scale=alt.Scale(zero=False)),
        color=alt.Color("run:N", title=None, scale=scale, legend=alt.Legend(orient="bottom", columns=2)),
    ).properties(width=WIDTH, height=HEIGHT, title=title)


def _stacked(rows: list[dict[str, Any]], title: str) -> Any:
    names = list(dict.fromkeys(row["name"] for row in rows))
    panels = []
    for i, name in enumerate(names):
        own = [row for row in rows if row["name"] == name]
        last = i == len(names) - 1
        panels.append(
            alt.Chart(alt.Data(values=own))
            .mark_line(color=SLOTS[i], strokeWidth=1.4, point=len(own) < 3)
            .encode(
                x=alt.X("step:Q", title="student step" if last else None, axis=alt.Axis(labels=last)),
                y=alt.Y("value:Q", title=name, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4)),
            )
            .properties(width=WIDTH, height=HEIGHT // 2)
        )
    return alt.vconcat(*panels, spacing=6, title=title)


def _heat(found: Preferences, columns: Sequence[str], title: str, signed: bool = False) -> alt.LayerChart:
    rows = [
        {"row": f"{subject} ({n})", "column": column, "value": value, "said": f"{value:.2f}{'*' * star}"}
        for subject, n, line, stars in zip(found.subjects, found.counts, found.cells, found.marked, strict=True)
        for column, value, star in zip(columns, line, stars, strict=True)
        if value is not None
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("column:N", sort=None, title=None, axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("row:N", sort=None, title=None),
    )
    scale = alt.Scale(range=_SIGNED if signed else _SHARES, **({"domainMid": 0} if signed else {"zero": True}))
    squares = base.mark_rect().encode(color=alt.Color("value:Q", legend=None, scale=scale))
    texts = base.mark_text(fontSize=9).encode(text="said:N")
    return alt.layer(squares, texts).properties(width=40 * len(columns), height=26 * len(found.subjects), title=title)


def _relative(row: Sequence[float | None]) -> list[float | None]:
    middle = mean(row) or 0.0
    return [None if value is None else value - middle for value in row]


def _side_by_side(panels: Sequence[Any]) -> alt.ConcatChart:
    chart = alt.hconcat(*panels, spacing=24).resolve_scale(color="independent")
    return chart.configure(
        font="Helvetica, Arial, sans-serif",
        background="white",
        axis=alt.AxisConfig(titleFontWeight="normal", grid=False, labelFontSize=9, titleFontSize=10),
        title=alt.TitleConfig(fontSize=11, fontWeight="normal", anchor="start"),
        view=alt.ViewConfig(stroke="#999999"),
    )
