"""The corpus on the page: counts beside Tables 6 and 7, yield, lengths, and how well the perspectives are told apart."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mind_distill.corpus.perspectives import Perspective
from mind_distill.corpus.stats import PAPER_LEVELS, PAPER_SUBJECTS
from mind_distill.records import Lesson
from mind_distill.report.source import Source
from mind_distill.report.words import clip, number, visible


class Count(NamedTuple):
    """A subject or level: lessons in the corpus, lessons this run visited, problems in the paper's table."""

    name: str
    here: int
    visited: int | None
    paper: int | None


class Lengths(NamedTuple):
    """A perspective: its accepted rationales, their lengths in words, its rejected ones, and how well it is told apart."""

    slot: int
    name: str
    texts: int
    low: int
    median: float
    high: int
    rejected: int
    told: float | None


class Yield(NamedTuple):
    """A level: lessons, and the share of them that has an accepted rationale of each perspective."""

    level: str
    lessons: int
    shares: list[float]


class CorpusFigures(NamedTuple):
    """What the page shows of a corpus; `notes` are the manifest's own facts in reading order."""

    lessons: int
    neutral: int
    subjects: list[Count]
    levels: list[Count]
    perspectives: list[Lengths]
    yields: list[Yield]
    reasons: list[tuple[str, int]]
    accuracy: float | None
    notes: list[tuple[str, str]]


def corpus_figures(source: Source) -> CorpusFigures | None:
    """The figures of a run's corpus; None if its texts are not at hand."""
    if not source.lessons:
        return None
    visited = source.visited()
    tally = Tally(source.corpus_perspectives)
    seen = Tally(source.corpus_perspectives)
    for id_, lesson in source.lessons.items():
        tally.add(lesson)
        if id_ in visited:
            seen.add(lesson)
    return tally.figures(read_manifest(Path(str(source.setting("corpus.source", "")))), seen if visited else None)


def examples(source: Source) -> list[Lesson]:
    """A lesson of the lowest and one of the highest level, in full; those with a rejected text first."""
    ordered = sorted(
        source.lessons.values(), key=lambda lesson: (lesson.problem.level or 0, not lesson.rejected, lesson.problem.id)
    )
    highest = [lesson for lesson in ordered if lesson.problem.level == ordered[-1].problem.level] if ordered else []
    return list({lesson.problem.id: lesson for lesson in (*ordered[:1], *highest[:1])}.values())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a corpus folder; empty where there is none or it is broken."""
    try:
        values = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


class Tally:
    """Counts over lessons, taken one at a time so that a corpus of any size can be counted."""

    def __init__(self, perspectives: Iterable[Perspective]) -> None:
        self.perspectives = list(perspectives)
        self.lessons = self.neutral = 0
        self.subjects: Counter[str] = Counter()
        self.levels: Counter[str] = Counter()
        self.words: dict[str, Counter[int]] = defaultdict(Counter)
        self.rejected: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.held: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, lesson: Lesson) -> None:
        """Count one lesson."""
        level = str(lesson.problem.level or "none")
        self.lessons += 1
        self.subjects[lesson.problem.subject or "none"] += 1
        self.levels[level] += 1
        self.neutral += len(lesson.neutral)
        for rationale in lesson.rationales:
            self.words[rationale.perspective][len(rationale.text.split())] += 1
            self.held[level][rationale.perspective] += 1
        for rationale in lesson.rejected:
            self.rejected[rationale.perspective] += 1
            self.reasons[rationale.reason or "no reason given"] += 1

    def to_json(self) -> dict[str, Any]:
        """Everything counted, as plain JSON."""
        nested = {name: {key: dict(c) for key, c in getattr(self, name).items()} for name in ("words", "held")}
        plain = {name: dict(getattr(self, name)) for name in ("subjects", "levels", "rejected", "reasons")}
        return {"lessons": self.lessons, "neutral": self.neutral, **plain, **nested}

    @classmethod
    def from_json(cls, perspectives: Iterable[Perspective], text: str | None) -> Tally:
        """A tally as `to_json` left it; a new one from None."""
        tally = cls(perspectives)
        if text is not None:
            given = json.loads(text)
            tally.lessons, tally.neutral = given["lessons"], given["neutral"]
            for name in ("subjects", "levels", "rejected", "reasons"):
                getattr(tally, name).update(given[name])
            for key, counts in given["held"].items():
                tally.held[key].update(counts)
            for key, counts in given["words"].items():
                tally.words[key].update({int(length): n for length, n in counts.items()})
        return tally

    def figures(self, manifest: dict[str, Any], visited: Tally | None = None) -> CorpusFigures:
        """The figures so far; a corpus of other subjects than the paper's is not set beside Table 6."""
        told = _separability(manifest)
        like_paper = len(self.subjects.keys() & PAPER_SUBJECTS.keys()) >= 2
        lengths = [
            _lengths(slot, p, self.words[p.key], self.rejected[p.key], told.get(p.key))
            for slot, p in enumerate(self.perspectives)
        ]
        return CorpusFigures(
            self.lessons,
            self.neutral,
            _counts(self.subjects, visited.subjects if visited else None, PAPER_SUBJECTS if like_paper else {}),
            _counts(
                self.levels, visited.levels if visited else None, PAPER_LEVELS if self.levels.keys() - {"none"} else {}
            ),
            lengths,
            [
                Yield(level, n, [self.held[level][p.key] / n for p in self.perspectives])
                for level, n in sorted(self.levels.items())
            ],
            self.reasons.most_common(),
            told.get(""),
            _notes(manifest),
        )


def _counts(here: Counter[str], visited: Counter[str] | None, paper: dict[str, int]) -> list[Count]:
    return [
        Count(
            visible(name.replace("_", " ")),
            here[name],
            None if visited is None else visited[name],
            paper.get(name, 0) if paper else None,
        )
        for name in sorted({*here, *paper})
    ]


def _lengths(slot: int, p: Perspective, words: Counter[int], rejected: int, told: float | None) -> Lengths:
    if not words:
        return Lengths(slot, clip(p.name, 60), 0, 0, 0, 0, rejected, told)
    return Lengths(slot, clip(p.name, 60), words.total(), min(words), _median(words), max(words), rejected, told)


def _median(words: Counter[int]) -> float:
    """The median of counted values, without a list of them all."""
    half, seen = (words.total() + 1) / 2, 0
    low: int | None = None
    for value in sorted(words):
        seen += words[value]
        if low is None and seen >= int(half):
            low = value
        if seen >= half:
            assert low is not None
            return value if half == int(half) else statistics.fmean((low, value))
    return 0


def _separability(manifest: dict[str, Any]) -> dict[str, float]:
    """Share of each perspective's texts told apart, and under '' of all, from wherever the manifest holds it."""
    stats = manifest.get("stats")
    found = manifest.get("separability") or (stats.get("separability") if isinstance(stats, dict) else None)
    if not isinstance(found, dict):
        return {}
    by = found.get("by_perspective")
    shares = {str(key): value for key, value in by.items()} if isinstance(by, dict) else {}
    known = {key: number(value) for key, value in {**shares, "": found.get("accuracy")}.items()}
    return {key: value for key, value in known.items() if value is not None}


def _notes(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Teachers, tokens, cost, and the counts of each stage of the build, as far as the manifest tells them."""
    found: list[tuple[str, str]] = []
    teachers = manifest.get("teachers")
    if isinstance(teachers, list) and teachers:
        names = [str(t.get("model", t.get("id", "?"))) if isinstance(t, dict) else str(t) for t in teachers]
        found.append(("Teachers", ", ".join(names)))
    counts = manifest.get("counts")
    for values in (manifest, counts if isinstance(counts, dict) else {}):
        for key, value in values.items():
            if key not in ("format", "lessons") and number(value) is not None:
                found.append((key.replace("_", " ").capitalize(), f"{value:,}"))
    return found[:12]
