"""How much of a server's throughput the client uses, beside other clients; or how a large journal opens.

    python benchmarks/corpus_throughput.py [--seconds 10] [--curator PYTHON] [--distilabel PYTHON]
    python benchmarks/corpus_throughput.py --rows 1000000

The server is `mind serve-scripted`, 200 ms an answer and room for 256, in a process of its own, new for each client; so is each
client (peer_legs.py says how the others are set). PYTHON is that of an environment with `bespokelabs-curator`, or `distilabel[openai]`
and `requests`. The ideal is slots / latency. `of ideal` counts from the call to its return, imports left out; `served` from the first
request that reaches the server to its last answer, so without a client's own start and end. The journal's durability is in our figures;
the openai client keeps nothing, and is left out where absent. CPU and memory are of all processes of a client.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peer_legs import PEERS, PROMPT, Run, leg

from mind_distill.generation.client import Client
from mind_distill.generation.endpoint import Endpoint, Message, Reply, Request
from mind_distill.generation.journal import Journal
from mind_distill.generation.ledger import insert

LATENCY_MS = 200
CAPACITY = 256
SAMPLED_S = 0.5  # between two looks at a client's memory


def questions(url: str, slots: int, start: int, n: int) -> Iterator[Request]:
    endpoint = Endpoint(base_url=url, model="toy", concurrency=slots)
    for i in range(start, start + n):
        yield Request(endpoint, (Message("user", PROMPT.format(i)),))


def ours(url: str, slots: int, n: int) -> Run:
    def run() -> int:
        with tempfile.TemporaryDirectory(dir=".") as folder, Journal(Path(folder) / "journal.sqlite") as journal:
            answered = 0

            def hear(request: Request, ended: object) -> None:
                nonlocal answered
                answered += isinstance(ended, Reply)

            Client(journal).ask(questions(url, slots, 0, n), hear)
            return answered

    return run


def memory_mib(session: int) -> float:
    """Of all processes of a session; pages that they share are counted once."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                total += next(
                    int(line.split()[1]) for line in (folder / "smaps_rollup").open() if line.startswith("Pss:")
                )
        except (OSError, StopIteration):  # it has just ended
            continue
    return total / 1024


def run_leg(command: list[str]) -> dict[str, Any]:
    """The figures that a client's process prints, with the memory of its children where it has some."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True)
        most = 0.0
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=SAMPLED_S)
                    break
                except subprocess.TimeoutExpired:
                    most = max(most, memory_mib(process.pid))
        finally:
            if process.poll() is None:  # interrupted; what has a session of its own does not hear of that
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()[-3000:]}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    found["rss_mib"] = max(found["rss_mib"], most)
    return found


def measured(command: list[str], slots: int, n: int) -> dict[str, Any]:
    """One client against a server of its own; checks at the server that all was answered, with no more than the slots."""
    options = ["--latency-ms", str(LATENCY_MS), "--capacity", str(CAPACITY), "--no-prefixes", "--json"]
    server_command = [sys.executable, "-m", "mind_distill.cli", "serve-scripted", *options]
    server = subprocess.Popen(server_command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["base_url"]
        found = run_leg([*command, url, str(slots), str(n)])
        with urllib.request.urlopen(url.replace("/v1", "/_counts?times=1")) as page:
            seen = json.load(page)
    finally:
        server.kill()
        server.communicate()
    assert found["answered"] == n and seen["answered"] in (n, n + 1) and seen["most_in_flight"] <= slots, (found, seen)
    arrived = sorted(begun for begun, _ in seen["times"])[-n:]  # without curator's one try before its clock starts
    found["served_s"] = arrived[-1] - arrived[0] + LATENCY_MS / 1000
    return found


def measure(seconds: float, pythons: dict[str, str | None]) -> None:
    """The table."""
    print(f"{'client':20} {'slots':>5} {'a second':>9} {'of ideal':>9} {'served':>9} {'CPU us':>8} {'RSS MiB':>8}")
    for slots in (64, 256):
        ideal = slots / LATENCY_MS * 1000
        n = int(ideal * seconds)
        for name in ("mind", *PEERS):
            python = pythons.get(name.partition(",")[0], sys.executable)
            if python is None or (name.startswith("openai") and importlib.util.find_spec("openai") is None):
                print(f"{name:20} {slots:5}  left out: no environment with it", flush=True)
                continue
            script = __file__ if name == "mind" else str(Path(__file__).with_name("peer_legs.py"))
            found = measured([python, script, "--leg", name] if name == "mind" else [python, script, name], slots, n)
            rate, served = n / found["seconds"], n / found["served_s"]
            print(
                f"{name:20} {slots:5} {rate:9.0f} {rate / ideal:9.1%} {served / ideal:9.1%}"
                f" {found['cpu'] / n * 1e6:8.0f} {found['rss_mib']:8.0f}",
                flush=True,
            )


def resume(rows: int) -> None:
    """A journal of so many answers: until it is open and the first unknown request is asked, and the memory that takes."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "journal.sqlite"
        Journal(path).close()
        reply = Reply("An answer of some length. " * 12, "stop", 300, 80, 0, "toy", 1.0, 1)
        with sqlite3.connect(path) as base:
            base.execute("PRAGMA synchronous=OFF")
            for request in questions("http://127.0.0.1:9/v1", 1, 0, rows):
                base.execute(*insert(request.key(), reply))
        base.close()
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        with Journal(path) as journal:
            opened = time.perf_counter() - begun
            (unknown,) = questions("http://127.0.0.1:9/v1", 1, rows, 1)
            assert journal.get(unknown.key()) is None
            asked, begun = time.perf_counter() - begun, time.perf_counter()
            some = min(rows, 100_000)
            Client(journal).ask(questions("http://127.0.0.1:9/v1", 1, 0, some), lambda *_: None)
            known = (time.perf_counter() - begun) / some * 1e6
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(
            f"journal of {rows} answers ({path.stat().st_size >> 20} MiB): open in {opened:.2f} s, first unknown request known to "
            f"be so after {asked:.2f} s, {known:.0f} us for a known one, memory grown by {grown:.0f} MiB"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10, help="of each leg, at ideal throughput")
    parser.add_argument("--rows", type=int, default=0, help="measure a journal of so many answers instead")
    for peer in ("curator", "distilabel"):
        parser.add_argument(f"--{peer}", metavar="PYTHON", help=f"the Python of an environment with {peer}")
    parser.add_argument("--leg", nargs=4, metavar=("CLIENT", "URL", "SLOTS", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leg:
        leg(ours(options.leg[1], int(options.leg[2]), int(options.leg[3])))
    elif options.rows:
        resume(options.rows)
    else:
        measure(options.seconds, {"curator": options.curator, "distilabel": options.distilabel})
