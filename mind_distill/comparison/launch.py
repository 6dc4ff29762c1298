"""Cells as processes: each a `mind train` with a log, as many at a time as there are devices, none taking another with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PATIENCE = 600.0  # seconds that a stopped cell may take to finish its step and save
POLL = 0.2
LAST = 400  # characters of a log's last line that are shown
STOPPED = {3, 130, 143}  # exit statuses of a run that can go on


class Job(NamedTuple):
    """One cell to run: its recipe file, its run directory, its log, and the jobs that come first."""

    name: str
    recipe: Path
    folder: Path
    log: Path
    needs: tuple[str, ...]
    force: bool


class Device(NamedTuple):
    """Where one cell runs: GPUs by their number, or none for the CPU."""

    gpus: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        chosen = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return {**os.environ, **chosen, "PYTHONUNBUFFERED": "1"}


def find_devices(asked: int | str, each: int) -> list[Device]:
    """A device a cell that may run at a time: sets of `each` GPUs; without a GPU the CPU, once or as often as asked."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    gpus = visible.split(",")[:count] if visible else [str(i) for i in range(count)]
    if not gpus:
        return [Device(())] * (1 if asked == "auto" else int(asked))
    sets = [Device(tuple(gpus[i : i + each])) for i in range(0, len(gpus) - each + 1, each)] or [Device(tuple(gpus))]
    return sets if asked == "auto" else sets[: int(asked)]


def command(job: Job, device: Device) -> list[str]:
    """What a cell runs; a person may run the same line."""
    program = [sys.executable, "-m", "mind_distill.cli"]
    if len(device.gpus) > 1:
        many = ["--multi_gpu", "--num_processes", str(len(device.gpus)), "--main_process_port", "0"]
        program = [sys.executable, "-m", "accelerate.commands.launch", *many, "-m", "mind_distill.cli"]
    force = ["--force"] if job.force else []
    return [*program, "train", str(job.recipe), "--output", str(job.folder), "--resume", *force]


@dataclass
class _Running:
    job: Job
    device: Device
    process: subprocess.Popen[bytes]
    begun: float = field(default_factory=time.monotonic)


def run_all(
    jobs: Sequence[Job],
    devices: Sequence[Device],
    ready: Callable[[Job], bool | None],
    ended: Callable[[Job, int, float], None],
    say: Callable[[str], None],
) -> None:
    """Run every job for which `ready` is true; None means never (what it needs has failed). `ended` hears of each end.

    Whatever ends this process ends its cells too: each finishes its step, saves, and can be resumed.
    """
    waiting, running, free = list(jobs), list[_Running](), list(devices)
    with _ending(running, say):
        while waiting or running:
            for job in list(waiting):
                verdict = ready(job)
                if verdict is None:
                    waiting.remove(job)
                elif verdict and free:
                    waiting.remove(job)
                    running.append(_start(job, free.pop(0)))
            time.sleep(POLL)
            for one in list(running):
                status = one.process.poll()
                if status is not None:
                    running.remove(one)
                    free.append(one.device)
                    ended(one.job, status, time.monotonic() - one.begun)


def _start(job: Job, device: Device) -> _Running:
    line = command(job, device)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        log.write(f"$ {' '.join(line)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=device.environment(),
            start_new_session=True,  # a Ctrl-C reaches this process alone, which passes it on once
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    return _Running(job, device, process)


def _die_with_parent() -> None:
    """Linux sends SIGTERM to the cell when this process is killed, so that no cell goes on unseen."""
    import ctypes

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


@contextmanager
def _ending(running: Sequence[_Running], say: Callable[[str], None]) -> Iterator[None]:
    """On the way out by any exception, ask the cells to stop and wait for them; a second Ctrl-C kills them."""
    try:
        yield
    except BaseException:
        if running:
            say(
                f"Stopping. Each running cell finishes its step and saves: {', '.join(one.job.name for one in running)}."
            )
        for one in running:
            _signal(one, signal.SIGTERM)
        try:
            for one in running:
                one.process.wait(PATIENCE)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            for one in running:
                _signal(one, signal.SIGKILL)
        raise


def _signal(one: _Running, number: int) -> None:
    """To the cell's whole session: `accelerate launch` has processes of its own."""
    if one.process.poll() is None:
        os.killpg(one.process.pid, number)


def last_line(log: Path) -> str:
    """What the newest attempt said last: its complaint, else the exception of its traceback."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    begun = max((i for i, line in enumerate(lines) if line.startswith("$ ")), default=-1)
    lines = lines[begun + 1 :]
    told = [line for line in lines if line.startswith("mind: ") and "fault of the program" not in line]
    errors = [line for line in lines if not line.startswith((" ", "mind: "))]
    return (told or errors or lines or ["the log is empty"])[-1][:LAST]
