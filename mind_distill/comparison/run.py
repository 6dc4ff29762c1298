"""`mind compare`: a study's cells run, each once, and the numbers of the finished ones gathered."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mind_distill.comparison.cells import Cell, expand, folder_of
from mind_distill.comparison.gather import Seen, Table, see
from mind_distill.comparison.launch import STOPPED, Job, find_devices, last_line, run_all
from mind_distill.comparison.prepare import Preparation, Prepared
from mind_distill.comparison.settings import StudySettings, read_study
from mind_distill.comparison.statistics import Resampler
from mind_distill.config import to_yaml, unknown_name
from mind_distill.errors import UserError
from mind_distill.report import comparison as found
from mind_distill.report.tables import write_tables
from mind_distill.runs import Run, claim_output, publish, read_settings
from mind_distill.terminal import Face


class Study(NamedTuple):
    """A study read and taken apart, every cell checked."""

    name: str
    settings: StudySettings
    values: dict[str, Any]
    cells: list[Prepared]
    estimated: list[str]


def load_study(name: str, overrides: list[str], output: Path, exact: bool = True) -> Study:
    """The study with all of its cells prepared; nothing is written and no model loads."""
    settings, values = read_study(name, overrides)
    preparation = Preparation(settings, exact)
    cells = expand(settings, output, preparation.perspectives())
    return Study(name, settings, values, [preparation.cell(cell) for cell in cells], preparation.estimated)


def compare(
    name: str,
    overrides: list[str],
    output: Path,
    face: Face,
    *,
    resume: bool = False,
    force: bool = False,
    only: str | None = None,
) -> found.Comparison:
    """Run the cells that are not finished yet, and write comparison.json, tables and figures into `output`.

    `only` runs one cell and what it needs; several such commands may fill one folder, for instance as jobs of a cluster.
    """
    _claim(output, resume or only is not None)
    study = load_study(name, overrides, output)
    chosen = _with_needs(study.cells, only) if only else study.cells
    if not force:
        for one in study.cells:
            claim_output(folder_of(output, one.cell.name), True, one.resolved)
    output.mkdir(parents=True, exist_ok=True)
    with _lock(output, shared=only is not None):
        publish(output / "study.yaml", to_yaml(study.values))
        with face.track("Cells", len(chosen)) as advance:
            progress = Progress(study, output, face, advance)
            progress.run(chosen, force)
    return progress.comparison


class Progress:
    """The cells of a study while they run: which are finished, which failed and why."""

    def __init__(self, study: Study, output: Path, face: Face, advance: Any) -> None:
        self.study, self.output, self.face, self.advance = study, output, face, advance
        self.states = {one.cell.name: self._state(one.cell, "waiting") for one in study.cells}
        for one in study.cells:
            if _finished(one, output):
                self.states[one.cell.name] = self._state(one.cell, "finished")
        self.comparison = self.write()

    def run(self, chosen: Sequence[Prepared], force: bool) -> None:
        """Run what is not finished; the comparison is written anew after each cell, so a killed study leaves a table too."""
        jobs = []
        for one in chosen:
            if self.states[one.cell.name].status == "finished":
                self.advance(1)
                continue
            jobs.append(self._job(one, force))
        if not jobs:
            self.face.say("Every cell is finished already.")
            return
        settings = self.study.settings
        devices = find_devices(settings.devices, settings.devices_per_cell)
        self.face.say(
            f"{len(jobs)} cells to run, {min(len(devices), len(jobs))} at a time. Logs: {self.output / 'logs'}."
        )
        run_all(jobs, devices, self._ready, self._ended, self.face.say)

    def _job(self, one: Prepared, force: bool) -> Job:
        name = one.cell.name
        recipe = self.output / "recipes" / f"{name}.yaml"
        recipe.parent.mkdir(exist_ok=True)
        publish(recipe, to_yaml(one.recipe))
        return Job(name, recipe, folder_of(self.output, name), self._log(name), one.cell.needs, force)

    def _ready(self, job: Job) -> bool | None:
        statuses = {need: self.states[need].status for need in job.needs}
        lost = [need for need, status in statuses.items() if status in ("failed", "stopped", "left out")]
        if lost:
            self._set(job.name, "left out", f"needs {', '.join(lost)}, which did not finish")
            return None
        return all(status == "finished" for status in statuses.values())

    def _ended(self, job: Job, status: int, seconds: float) -> None:
        if status == 0:
            self._set(job.name, "finished", "")
            self.face.say(f"{job.name}: finished in {seconds:.0f} s. {_scores(Run.load(job.folder))}")
            return
        message = f"exit status {status}: {last_line(job.log)}"
        self._set(job.name, "stopped" if status in STOPPED else "failed", message)
        self.face.say(f"{job.name}: did not finish ({message}). Log: {job.log}")

    def _set(self, name: str, status: found.Status, message: str) -> None:
        cell = next(one.cell for one in self.study.cells if one.cell.name == name)
        self.states[name] = self._state(cell, status, message)
        self.advance(1)
        self.comparison = self.write()

    def _state(self, cell: Cell, status: found.Status, message: str = "") -> found.CellState:
        folder, log = folder_of(self.output, cell.name), self._log(cell.name)
        return found.CellState(
            name=cell.name,
            student=cell.student,
            row=cell.row,
            member=cell.member,
            seed=cell.seed,
            status=status,
            message=message,
            folder=str(folder.relative_to(self.output)),
            log=str(log.relative_to(self.output)),
        )

    def _log(self, name: str) -> Path:
        return self.output / "logs" / f"{name}.log"

    def write(self) -> found.Comparison:
        """comparison.json, tables and figures from the cells that are finished."""
        comparison = gather(self.study, self.output, self.states)
        publish(self.output / found.FILE, comparison.to_json())
        write_tables(comparison, self.output)
        return comparison


def gather(study: Study, output: Path, states: dict[str, found.CellState]) -> found.Comparison:
    """The comparison of the finished cells."""
    settings = study.settings
    seen: dict[str, Seen] = {}
    for one in study.cells:
        if states[one.cell.name].status == "finished":
            before = sum(seen[need].cost.target_tokens for need in one.cell.needs if need in seen)
            seen[one.cell.name] = see(one.cell, output, before)
    resampler = Resampler(resamples=settings.resamples)
    tables = [
        Table(settings, student, [s for s in seen.values() if s.cell.student == student.title], resampler)
        for student in settings.all_students()
    ]
    infos = [Run(folder_of(output, name)).info() for name in seen]
    limit = settings.evaluation.limit
    limits = limit if isinstance(limit, dict) else {name: limit for name in settings.questions if limit}
    return found.Comparison(
        format=found.FORMAT,
        study=study.name,
        regime=settings.regime,
        budget="; ".join(dict.fromkeys(one.budget.words() for one in settings.all_students() if one.budget)),
        reference=settings.reference,
        groups=tables[0].groups,
        limits=limits,
        corpus=", ".join(f"{key} {value}" for key, value in settings.corpus.items()) or "starter",
        resamples=settings.resamples,
        hardware=sorted({_hardware(info) for info in infos}),
        versions=infos[0]["versions"] if infos else {},
        students=[table.result() for table in tables],
        cells=list(states.values()),
    )


def _hardware(info: dict[str, Any]) -> str:
    values = info["hardware"]
    devices = values.get("gpus") or values.get("accelerators")
    return f"{values['processor']}, {values['cores']} cores" + (f", {devices}" if devices else "")


def _scores(run: Run) -> str:
    return ", ".join(f"{score.benchmark} {score.accuracy:.1%}" for score in run.scores("final"))


def _finished(one: Prepared, output: Path) -> bool:
    """Whether the cell's run has ended well under these very settings."""
    folder = folder_of(output, one.cell.name)
    if not (folder / "run.json").is_file() or not (folder / "settings.yaml").is_file():
        return False
    plain = json.loads(json.dumps(one.resolved))
    return Run(folder).status == "finished" and read_settings(folder) == plain


def _with_needs(cells: Sequence[Prepared], name: str) -> list[Prepared]:
    by_name = {one.cell.name: one for one in cells}
    if name not in by_name:
        raise UserError(unknown_name("Cell", name, "", list(by_name)))
    wanted, todo = set[str](), [name]
    while todo:
        wanted.add(todo[-1])
        todo += [need for need in by_name[todo.pop()].cell.needs if need not in wanted]
    return [one for one in cells if one.cell.name in wanted]


def _claim(output: Path, resume: bool) -> None:
    """A UserError where the folder is taken."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; --output names a folder.")
    if not output.exists() or not any(entry.name != "lock" for entry in output.iterdir()):
        return
    if not (output / "study.yaml").is_file():
        raise UserError(f"{output} is not empty and not a comparison. Choose another --output.")
    if not resume:
        raise UserError(f"{output} holds a comparison already. Continue it with --resume, or choose another --output.")


@contextmanager
def _lock(output: Path, shared: bool) -> Iterator[None]:
    """One command runs a whole study at a time; single cells may run beside one another, each locked by its own folder."""
    with (output / "lock").open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"{output} is being filled by another `mind compare`. Wait for it, or choose another --output."
            ) from None
        yield
