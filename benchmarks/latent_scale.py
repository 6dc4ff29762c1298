"""How `mind latent` grows: seconds and memory of encoder, mixture and map against the number of points of width 4,096.

    python benchmarks/latent_scale.py [--points 1000 5000 20000 50000] [--width 4096] [--folder DIR]

States are made up (8 models, each with an offset of its own, on problems with offsets of theirs) and stored in half precision,
as the command stores them. Every size has a process of its own. Memory is the most that a process held beyond what it held
after its imports, without the pages of the stored states, which the system may drop; it is sampled every 50 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mind_distill.threads import busy_cores, stop_spinning

stop_spinning()

import numpy as np  # noqa: E402  (the thread settings must come first)

MODELS, ROWS = 8, 2048
STAGES = ("reduce", "encoder", "mixture", "project", "t-SNE")


def main() -> None:
    """Print a line for each number of points."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, nargs="+", default=[1000, 5000, 20000, 50000])
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--folder", type=Path, help="where the states are made; default: a temporary folder")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.points[0], given.width)))
        return
    print(
        f"machine: {os.cpu_count()} cores, {busy_cores(2.0):.1f} busy before the start; width {given.width:,}, half precision"
    )
    print(
        f"{'points':>8s}"
        + "".join(f"{stage + ' s':>11s}" for stage in STAGES)
        + f"{'CPU s':>9s}{'MiB':>7s}{'map MiB':>9s}"
    )
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for points in given.points:
            states = make_states(Path(folder) / "states", points, given.width)
            command = [
                sys.executable,
                __file__,
                "--measure",
                str(states),
                "--points",
                str(points),
                "--width",
                str(given.width),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            told = json.loads(done.stdout)
            seconds = "".join(f"{told[stage]:11.1f}" for stage in STAGES)
            print(f"{points:8d}{seconds}{told['cpu']:9.1f}{told['memory']:7.0f}{told['map_memory']:9.0f}", flush=True)


def make_states(path: Path, points: int, width: int) -> Path:
    """States of so many points, model by model as the command stores them."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(MODELS, width)).astype(np.float32) * 0.3
    problems = -(-points // MODELS)
    stored = np.memmap(path, np.float16, "w+", shape=(points, width))
    for start in range(0, points, ROWS):
        rows = np.arange(start, min(start + ROWS, points))
        own = np.random.default_rng(1).normal(size=(64, width)).astype(np.float32)[rows % problems % 64]
        noise = rng.standard_normal((len(rows), width), dtype=np.float32)
        stored[start : start + len(rows)] = offsets[rows // problems] + own + noise
    stored.flush()
    return path


def measure(path: Path, points: int, width: int) -> dict[str, float]:
    """Seconds of each stage, and the most memory of its own that the process held, in MiB."""
    import sklearn.mixture  # noqa: F401
    import torch  # noqa: F401

    from mind_distill.latent import autoencoder, encoder
    from mind_distill.latent.maps import MapSettings, fit_map

    states = np.memmap(path, np.float16, "r", shape=(points, width))
    problem = np.arange(points) % -(-points // MODELS)
    taken: dict[str, float] = {}
    encoder.fit_reduction = _timed(encoder.fit_reduction, "reduce", taken)
    autoencoder.train = _timed(autoencoder.train, "encoder", taken)
    encoder.fit_mixture = _timed(encoder.fit_mixture, "mixture", taken)
    with Memory() as memory:
        fitted = encoder.fit_encoder(states, problem, encoder.EncoderSettings(), seed=0)
        z = _timed(fitted.project, "project", taken)(states, problem)
    with Memory() as map_memory:
        _timed(fit_map, "t-SNE", taken)(z, MapSettings(), seed=0)
    return taken | {"cpu": time.process_time(), "memory": memory.most, "map_memory": map_memory.most}


def _timed(function: Callable[..., Any], stage: str, taken: dict[str, float]) -> Callable[..., Any]:
    def run(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        result = function(*given, **named)
        taken[stage] = taken.get(stage, 0.0) + time.perf_counter() - begun
        return result

    return run


class Memory:
    """The most memory of its own, in MiB, that the process held within the block beyond what it held before."""

    def __enter__(self) -> Memory:
        self.before, self.most, self._done = _own(), 0.0, threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            self.most = max(self.most, _own() - self.before)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()


def _own() -> float:
    """Memory of the process without pages of files, in MiB; with them where the system does not tell (then as a peak)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    found = re.search(r"RssAnon:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main()
