"""The HTML report of one or more runs: one file that needs no network, no evaluation of code and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mind_distill.errors import UserError
from mind_distill.records import Lesson
from mind_distill.report.answers import CHANGES, MAX_CHARACTERS, Answers, answers
from mind_distill.report.corpus_figures import CorpusFigures, corpus_figures, examples
from mind_distill.report.curves import Training
from mind_distill.report.facts import facts
from mind_distill.report.latent import Geometry, Inclinations, geometry, inclinations
from mind_distill.report.maps import Map, maps
from mind_distill.report.probe import Probe, probes
from mind_distill.report.results import Benchmark, GoldLoss, benchmarks, gold_loss
from mind_distill.report.room import MAX_PROBLEMS, Shelf, shelves
from mind_distill.report.side_by_side import side_by_side, unique_names
from mind_distill.report.source import TRAINS, Source
from mind_distill.report.templating import Live, Page, page
from mind_distill.runs import Run, publish


class Chapter(NamedTuple):
    """One run on the page; `anchor` sets its ids apart from those of the others."""

    anchor: str
    name: str
    source: Source
    benchmarks: list[Benchmark]
    gold_loss: GoldLoss | None
    training: Training
    geometry: Geometry | None
    inclinations: Inclinations | None
    probes: list[Probe]
    maps: list[Map]
    corpus: CorpusFigures | None
    examples: list[Lesson]
    shelves: list[Shelf]
    answers: list[Answers]

    @property
    def sections(self) -> list[tuple[str, str]]:
        """The sections that are on the page, in reading order."""
        trains = self.source.job in TRAINS
        given = (
            ("results", "Before and after", trains),
            ("facts", "What was run", trains or bool(facts(self.source))),
            ("training", "Training", trains),
            ("geometry", "Latent space", self.geometry is not None),
            ("inclination", "Cognitive inclination", self.inclinations is not None),
            ("probe", "MetaNet as a probe", bool(self.probes)),
            ("maps", "Maps", bool(self.maps)),
            ("corpus", "Corpus", self.corpus is not None),
            ("room", "Reading room", trains),
            ("answers", "Answers", trains),
        )
        return [(key, name) for key, name, there in given if there]


def runs_in(path: Path) -> list[Path]:
    """The run directory itself, or the cells of a comparison's folder in the order of their names."""
    cells = sorted(path.glob("cells/*/run.json"))
    return [cell.parent for cell in cells] if cells and not (path / "metrics.jsonl").exists() else [path]


def write_report(runs: Sequence[Run], target: Path) -> None:
    """Write the page for these runs to `target`, whole or not at all."""
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of the HTML file to write.")
    target.parent.mkdir(parents=True, exist_ok=True)
    publish(target, render([Source(run) for run in runs]).html)


def render(sources: Sequence[Source], live: Live | None = None) -> Page:
    """The page of these runs, in the order given."""
    assert sources
    chapters = [
        _chapter(i, name, source, len(sources))
        for i, (name, source) in enumerate(zip(unique_names(sources), sources, strict=True))
    ]
    return page(
        "page.html",
        _title(sources),
        live,
        chapters=chapters,
        comparison=side_by_side(sources) if len(sources) > 1 else None,
        outcomes=CHANGES,
        trains=TRAINS,
    )


def _title(sources: Sequence[Source]) -> str:
    if len(sources) > 1:
        return f"{len(sources)} runs side by side"
    if sources[0].job not in TRAINS:
        return f"{sources[0].job.capitalize()}: {sources[0].name}"
    return f"{sources[0].student.replace(' (embedded)', '')}, taught with {sources[0].method}"


def _chapter(i: int, name: str, source: Source, count: int) -> Chapter:
    found = benchmarks(source)
    given = answers(source, found, MAX_CHARACTERS // count)
    return Chapter(
        anchor=f"run{i}",
        name=name,
        source=source,
        benchmarks=found,
        gold_loss=gold_loss(source),
        training=Training(source),
        geometry=geometry(source),
        inclinations=inclinations(source),
        probes=probes(source),
        maps=maps(source),
        corpus=corpus_figures(source),
        examples=examples(source),
        shelves=shelves(source, given, max(1, MAX_PROBLEMS // count)),
        answers=given,
    )
