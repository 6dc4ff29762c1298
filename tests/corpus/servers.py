"""The scripted server as a process of its own, with rules that solve the scripted problems; its counts are the evidence."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOLUTION = "In way {{hash}} we look at the cups.\nThere are {{1}} red ones and {{2}} blue ones, {{total}} in all.\nThe answer is {{total}}."
WRONG = "In way {{hash}} we look at the cups.\nThere are {{1}} red ones and {{2}} blue ones.\nThe answer is {{1}}0."
RULES: list[dict[str, Any]] = [
    {
        "match": r'(?s)Your verdict on the solution, as JSON with "code": "([0-9a-f]{24})"',
        "reply": '{"code": "{{1}}", "soundness": {{pick 5|5|5|5|2}}, "perspective": 4, "consistency": 5, "why": "as I read it"}',
    },
    {"match": r"(?s)has (\d+) red.*brings (\d+) blue.*Write the plausible wrong", "reply": WRONG},
    {"match": r"(?s)has (\d+) red.*brings (\d+) blue.*Copy the attempt", "reply": "No idea.\nThe answer is 1."},
    {"match": r"(?s)has (\d*[37]) red.*brings (\d+) blue.*Ask yourself guiding", "reply": WRONG},
    {"match": r"(?s)has (\d+) red.*brings (\d+) blue", "reply": SOLUTION},
]


def rules_file(folder: Path) -> Path:
    """The rules, as the server reads them; {{total}} adds the two groups of cups, the only numbers in a problem."""
    path = folder / "rules.yaml"
    path.write_text(json.dumps({"rules": RULES}), encoding="utf-8")
    return path


class Server:
    """A running server."""

    def __init__(self, address: str) -> None:
        self.address = address

    def counts(self, **query: str) -> dict[str, Any]:
        """What the server itself counted."""
        extra = "?" + "&".join(query) if query else ""
        with urllib.request.urlopen(self.address.removesuffix("/v1") + "/_counts" + extra, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextmanager
def serving(*words: str) -> Iterator[str]:
    """The address of a `mind` verb that serves, in a process of its own."""
    command = [sys.executable, "-m", "mind_distill.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http"), "the server did not start"
        yield address
    finally:
        process.kill()
        process.wait()


@contextmanager
def scripted(folder: Path, *options: str) -> Iterator[Server]:
    """`mind serve-scripted`."""
    with serving("serve-scripted", "--rules", str(rules_file(folder)), *options) as address:
        yield Server(address)
