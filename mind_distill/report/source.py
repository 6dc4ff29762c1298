"""A run as the report reads it: what cannot be read is empty, and `missing` says so in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mind_distill.corpus.perspectives import STANDARD, Perspective
from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.records import Lesson, Prediction, Score
from mind_distill.report.words import clip, method_name, student_name, visible
from mind_distill.runs import FORMAT, Run

T = TypeVar("T")
Rows = list[dict[str, Any]]
MAX_CORPUS = 100_000_000  # bytes; a larger corpus is for `mind explore`, which reads it through an index
LATENT = {
    "format": FORMAT,
    "job": "latent",
    "status": "finished",
}  # of a folder that holds measurements and no run.json
TRAINS = ("train", "quickstart", "unknown")  # jobs that take steps


def open_run(path: str | Path) -> Run:
    """A run directory of any version and in any state, or what `mind latent` measured: what it lacks, the page says."""
    if not (Path(path) / "run.json").is_file() and not _measured(Path(path)):
        raise UserError(f"{path} is not a run directory: it has no run.json.")
    return Run(Path(path))


class Source:
    """Everything the page shows of one run. Never raises for a damaged run: the page says what is not there."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.name = run.path.resolve().name
        self.missing: list[str] = []
        alone = _measured(run.path) and not (run.path / "run.json").is_file()
        self.info: dict[str, Any] = LATENT if alone else self._guard("run.json", run.info, {})
        if self.info and self.info.get("format") != FORMAT:
            written = clip(str(self.info.get("format", "unknown")), 20)
            self.missing.append(f"The run is of format {written}, this version reads {FORMAT}: more may be missing.")
        self.settings: dict[str, Any] = {} if alone else self._guard("The settings", run.settings, {})
        self.metrics, self.visits, self.probe, self.events, self.timing = (
            [line for line in run.lines(f"{name}.jsonl") if isinstance(line, dict)]
            for name in ("metrics", "visits", "probe", "events", "timing")
        )
        self.scores: dict[str, list[Score]] = {
            label: self._guard(f"Evaluation '{label}'", partial(run.scores, label), [])
            for label in sorted(run.evaluations(), key=_place)
        }
        self._corpus: Corpus | None = None
        self.corpus_note = self._load_corpus()
        self._note_absent()

    @property
    def job(self) -> str:
        return str(self.info.get("job", "unknown"))

    @property
    def lessons(self) -> dict[str, Lesson]:
        """The corpus by problem id; empty if it is not at hand."""
        return self._lessons

    @property
    def corpus_perspectives(self) -> tuple[Perspective, ...]:
        return self._corpus.perspectives if self._corpus else STANDARD

    @property
    def status(self) -> str:
        return str(self.info.get("status", "unknown"))

    @property
    def student(self) -> str:
        return clip(student_name(self.setting("student", "unknown student")), 200)

    @property
    def method(self) -> str:
        return clip(method_name(self.setting("method.name", "unknown method")), 200)

    @property
    def slots(self) -> int:
        """K, from the run's own lines."""
        for rows, key in ((self.metrics, "alpha"), (self.visits, "alpha"), (self.probe, "nll")):
            if rows and isinstance(rows[-1].get(key), list):
                return len(rows[-1][key])
        return len(self._corpus.perspectives) if self._corpus else len(STANDARD)

    @property
    def perspectives(self) -> list[str]:
        """Names in slot order: the method's own columns where they fit, else the corpus's set, the standard one, or numbers."""
        return [visible(clip(name, 60)) for name in self._columns()]

    def _columns(self) -> list[str]:
        given = self.info.get("columns")
        own = [str(name) for name in given] if isinstance(given, list) else []
        for known in (own, *([p.name for p in known] for known in (self.corpus_perspectives, STANDARD))):
            if len(known) == self.slots:
                return known
        return [f"Perspective {k + 1}" for k in range(self.slots)]

    def slots_of_texts(self) -> dict[str, int]:
        """Where the numbers of each perspective's text stand, by key: a run may have learned from some of the corpus's
        perspectives, in which case later slots move up, or, as the baselines do, from other texts altogether."""
        columns = self._columns()
        return {p.key: columns.index(p.name) for p in self.corpus_perspectives if p.name in columns}

    def part(self, name: str) -> dict[str, Any]:
        """A section of run.json; empty if there is none."""
        value = self.info.get(name)
        return value if isinstance(value, dict) else {}

    def setting(self, path: str, default: Any = None) -> Any:
        """The resolved setting at 'training.lora.rank'."""
        value: Any = self.settings
        for part in path.split("."):
            if not isinstance(value, dict) or value.get(part) is None:
                return default
            value = value[part]
        return value

    def lesson(self, id_: str) -> Lesson | None:
        """The lesson with this id, if the corpus could be read and still holds it."""
        return self._lessons.get(id_)

    def predictions(self, label: str, benchmark: str) -> list[Prediction]:
        what = f"The answers of evaluation '{label}' to {benchmark}"
        return self._guard(what, partial(self.run.predictions, label, benchmark), [])

    def visited(self) -> dict[str, Rows]:
        """Visits by problem id, in id order."""
        found: dict[str, Rows] = {}
        for visit in self.visits:
            found.setdefault(str(visit.get("id")), []).append(visit)
        return dict(sorted(found.items()))

    def _guard(self, what: str, read: Callable[[], T], default: T) -> T:
        try:
            return read()
        except (
            UserError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            AssertionError,
            yaml.YAMLError,
        ) as fault:
            note = f"{what} cannot be read: {' '.join(str(fault).split())[:300]}"
            if note not in self.missing:
                self.missing.append(note)
            return default

    def _load_corpus(self) -> str:
        """Read the corpus from this machine alone and return what is to be said of its texts."""
        self._lessons: dict[str, Lesson] = {}
        given = str(self.setting("corpus.source", ""))
        if given != "starter" and not (given and Path(given).exists()):
            return f"The corpus '{given}' is not on this machine, so the texts of its rationales cannot be shown."
        if _size(Path(given)) > MAX_CORPUS:
            return f"The corpus '{given}' is too large for one page; `mind explore {given}` reads it."
        before = len(self.missing)
        self._corpus = self._guard(f"The corpus '{given}'", partial(Corpus.load, given), None)
        if self._corpus is None:
            return self.missing.pop(before) + " So the texts of its rationales cannot be shown."
        self._lessons = {lesson.problem.id: lesson for lesson in self._corpus}
        if self.visits and not self.slots_of_texts():
            columns = ", ".join(self.perspectives)
            return f"The run's columns ({columns}) are no perspectives of its corpus, so no texts stand beside the numbers."
        seen = {str(visit.get("id")) for visit in self.visits}
        used = self._corpus.without(self._lessons.keys() - seen)
        if used.content_hash() == self.part("hashes").get("corpus"):
            return "The texts are those learned from (same SHA-256 as recorded by the run)."
        return (
            f"The texts are read from the corpus '{given}' as it is now; that they are those learned from could not be "
            "checked, because the run did not visit every lesson or the corpus has changed."
        )

    def _note_absent(self) -> None:
        if self.job not in TRAINS:
            return
        for rows, sentence in (
            (self.metrics, "No training step is recorded."),
            (self.visits, "No visit to a problem is recorded, so there is no reading room."),
            (self.probe, "No probe was read (corpus.probe is 0, or the run ended before it)."),
            (self.timing, "No timing is recorded."),
            (self.scores, "No evaluation was finished."),
        ):
            if not rows:
                self.missing.append(sentence)


def _measured(folder: Path) -> bool:
    """Whether the folder holds what `mind latent` leaves: measurements or maps."""
    named = ("geometry.json", "inclination.json", "preference.json")
    return any((folder / name).is_file() for name in named) or any(folder.glob("map*.json"))


def _place(label: str) -> tuple[int, str]:
    return {"before": 0, "before-brief": 1, "after": 3, "final": 4}.get(label, 2), label


def _size(path: Path) -> int:
    file = path / "corpus.jsonl" if path.is_dir() else path
    return file.stat().st_size if file.is_file() else 0
