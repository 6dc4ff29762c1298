"""The run directory: one format with a version, written only through `publish` or whole appended lines.

`RunDirectory` writes while a run lasts; `Run` reads one, finished or not. Neither imports torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import yaml

from mind_distill.errors import Stopped, Terminated, UserError
from mind_distill.locks import Lock
from mind_distill.records import Prediction, Score, parse_record, read_records

FORMAT = 1
LINES = ("metrics.jsonl", "visits.jsonl", "probe.jsonl", "events.jsonl")  # compared bit by bit after a resume
_PACKAGES = ("mind-distill", "torch", "transformers", "peft", "accelerate", "sentence-transformers", "numpy")


def publish(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    with publishing(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content is at `path`, whole, when the block ends; if it raises, what was there before still is."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as problem:
        raise cannot_write(path, problem) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, problem: OSError) -> Stopped:
    """What to raise when the disk is full or a folder is read-only."""
    return Stopped(
        f"{path} could not be written ({problem.strerror}). What was there before is whole. Free space or mend the folder."
    )


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_files(folder: Path) -> None:
    """Make the files of a folder that is about to be renamed survive a power cut; it holds no folders."""
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


def versions() -> dict[str, str]:
    """Python and the packages on which a result depends."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def hardware() -> dict[str, Any]:
    """What the run has under it."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {"processor": model, "cores": os.cpu_count(), "system": platform.system()}


class RunDirectory:
    """A run being written. Hold it as a context: it locks the folder, and run.json always tells how it ended."""

    def __init__(self, path: Path, job: str, seed: int, resume: bool) -> None:
        self.path = path
        self._info: dict[str, Any] = {
            "format": FORMAT,
            "job": job,
            "status": "running",
            "command": shlex.join(["mind", *sys.argv[1:]]) if Path(sys.argv[0]).name == "mind" else "python",
            "seed": seed,
            "versions": versions(),
            "hashes": {},
            "hardware": hardware(),
            "start": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": 0.0,
            "resumed": 0,
        }
        self._resume = resume
        self._begun = time.monotonic()
        self._before = 0.0
        self._lock: Lock | None = None

    def __enter__(self) -> RunDirectory:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise UserError(
                f"The folder {self.path} cannot be made ({problem.strerror}). Choose another --output."
            ) from None
        self._lock = Lock(self.path / "lock", str(self.path))
        old = self.path / "run.json"
        if old.is_file():
            before = json.loads(old.read_text(encoding="utf-8"))
            self._before = float(before["seconds"])
            self._info |= {key: before[key] for key in ("start", "hashes", "job")}
            self._info["resumed"] = int(before["resumed"]) + 1
        self.write_info()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: object) -> None:
        stopped = kind is not None and issubclass(kind, KeyboardInterrupt | Stopped | Terminated)
        try:
            self.write_info(status="finished" if kind is None else "stopped" if stopped else "failed")
        except Stopped:
            if kind is None:
                raise
            # else the first problem is the one to tell
        finally:
            if self._lock:
                self._lock.release()

    @property
    def info(self) -> dict[str, Any]:
        """run.json as it stands."""
        return dict(self._info)

    def write_info(self, **changes: Any) -> None:
        """run.json with these fields changed."""
        self._info |= changes
        self._info["seconds"] = round(self._before + time.monotonic() - self._begun, 1)
        publish(self.path / "run.json", json.dumps(self._info, indent=1) + "\n")

    def write_settings(self, recipe: str, settings: str) -> None:
        """recipe.yaml as given, settings.yaml as resolved."""
        publish(self.path / "recipe.yaml", recipe)
        publish(self.path / "settings.yaml", settings)

    def append(self, name: str, values: dict[str, Any]) -> None:
        """One JSON line at the end of the file `name`."""
        line = json.dumps(values, ensure_ascii=True, allow_nan=False) + "\n"
        try:
            with (self.path / name).open("ab") as stream:
                stream.write(line.encode())
        except OSError as problem:
            raise cannot_write(self.path / name, problem) from None

    def line_sizes(self) -> dict[str, int]:
        """Bytes written to each compared file, for a checkpoint; the lines are on disk when this returns."""
        sizes = {}
        for name in LINES:
            path = self.path / name
            if path.is_file():
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
                sizes[name] = path.stat().st_size
        return sizes

    def cut_lines(self, sizes: dict[str, int]) -> None:
        """Forget what was written after a checkpoint: the steps that follow it are taken again."""
        for name in LINES:
            path = self.path / name
            if path.is_file():
                os.truncate(path, sizes.get(name, 0))


class Bystander(RunDirectory):
    """The run directory as the further processes of a run see it: the first one writes, these write nothing."""

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: object) -> None: ...

    def write_info(self, **changes: Any) -> None: ...

    def write_settings(self, recipe: str, settings: str) -> None: ...

    def append(self, name: str, values: dict[str, Any]) -> None: ...

    def line_sizes(self) -> dict[str, int]:
        return {}

    def cut_lines(self, sizes: dict[str, int]) -> None: ...


def claim_output(path: Path, resume: bool, settings: dict[str, Any], force: bool = False) -> bool:
    """Whether there is a run to continue at `path`. A UserError if it exists unasked, or its settings differ by name."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; --output names a folder.")
    if not path.exists() or not any(entry.name != "lock" for entry in path.iterdir()):
        return False
    if not (path / "run.json").is_file():
        raise UserError(f"{path} is not empty and not a run. Choose another --output.")
    if not any(
        (path / name).exists() for name in ("checkpoints", "evaluations", "adapter", "model", "first/checkpoints")
    ):
        return False  # it ended before anything was made, for instance at a mistake in the recipe: start afresh
    if not resume:
        raise UserError(f"{path} holds a run already. Continue it with --resume, or choose another --output.")
    before = read_settings(path)
    changed = sorted(_differences(before, settings))
    if changed and not force:
        raise UserError(
            f"{path} was made with other settings: {', '.join(changed)}. Resume with the same, or with --force, or choose "
            "another --output."
        )
    if changed:
        # forced: what was finished under the other settings is made again, from the newest checkpoint on
        for stale in ("adapter", "adapters", "model", "evaluations"):
            shutil.rmtree(path / stale, ignore_errors=True)
    return True


def _differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
    elif old != new:
        yield f"{key} ({old!r} then, {new!r} now)"


def read_settings(folder: Path) -> dict[str, Any]:
    """The resolved settings of a run."""
    file = folder / "settings.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is not a run directory: it has no settings.yaml.")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


@dataclass(frozen=True)
class Run:
    """A run directory to read: finished, stopped or still running."""

    path: Path

    @classmethod
    def load(cls, path: str | Path) -> Run:
        folder = Path(path)
        if not (folder / "run.json").is_file():
            raise UserError(f"{folder} is not a run directory: it has no run.json.")
        run = cls(folder)
        if run.info()["format"] != FORMAT:
            raise UserError(
                f"{folder}: run format {run.info()['format']} is not known to this version (it reads {FORMAT})."
            )
        return run

    def info(self) -> dict[str, Any]:
        """run.json."""
        values = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        assert isinstance(values, dict)
        return values

    @property
    def status(self) -> str:
        return str(self.info()["status"])

    def settings(self) -> dict[str, Any]:
        """The resolved settings."""
        return read_settings(self.path)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of metrics, visits, probe, events or timing; a line cut by a crash is left out."""
        path = self.path / name
        found = []
        if path.is_file():
            for line in path.read_bytes().split(b"\n"):
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def metrics(self) -> list[dict[str, Any]]:
        """A dict a student step."""
        return self.lines("metrics.jsonl")

    def evaluations(self) -> list[str]:
        """Labels of the finished evaluations, in alphabetical order."""
        return sorted(p.parent.name for p in self.path.glob("evaluations/*/scores.json"))

    def scores(self, label: str | None = None) -> list[Score]:
        """Scores of one evaluation; by default the newest of 'final', 'after', else the last finished label."""
        found = self.evaluations()
        chosen = label or next((name for name in ("final", "after") if name in found), found[-1] if found else "")
        file = self.path / "evaluations" / chosen / "scores.json"
        if not file.is_file():
            return []
        return [parse_record(Score, json.dumps(row), str(file)) for row in json.loads(file.read_text(encoding="utf-8"))]

    def predictions(self, label: str, benchmark: str) -> list[Prediction]:
        """The kept answers of one evaluation."""
        file = self.path / "evaluations" / label / f"{benchmark}.jsonl"
        if not file.is_file():
            return []
        with file.open("rb") as stream:
            return list(read_records(Prediction, stream, file))

    def summary(self) -> str:
        """A few plain lines: what ran, how it ended, what it cost, what it scored."""
        info, settings, metrics = self.info(), self.settings(), self.metrics()
        lines = [
            f"{settings['method']['name']} on {settings['student']}: {info['status']}, {len(metrics)} steps, "
            f"{info['seconds']:.0f} s",
        ]
        if metrics:
            lines.append(
                f"training loss {metrics[0]['loss']:.3f} at the first step, {metrics[-1]['loss']:.3f} at the last"
            )
        for label in self.evaluations():
            for score in self.scores(label):
                lines.append(
                    f"{label}: {score.benchmark} {score.accuracy:.1%} of {score.n} "
                    f"(95 % interval {score.low:.1%} to {score.high:.1%}), {score.parsed:.0%} parsed"
                )
        lines.append(f"run directory: {self.path}")
        return "\n".join(lines)

    def report(self, output: str | Path | None = None) -> Path:
        """Write the self-contained HTML report (by default report.html in the run directory) and return its path."""
        from mind_distill.report.run import write_report

        target = Path(output) if output else self.path / "report.html"
        write_report([self], target)
        return target
