"""How far a judge can be trusted: shown the starter corpus's right rationales and their flawed near twins, what does it pass?

    python benchmarks/judge.py --base-url http://127.0.0.1:8000/v1 --model NAME [--key-env VARIABLE] [--limit 50] [--retries 2]

Prints the false-accept rate (flawed ones passed), the false-reject rate (right ones failed) with Wilson 95 % intervals, and the share
that got no verdict. In a build the grader has rejected every wrong answer before the judge is asked.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from mind_distill.corpus.judge import Judge, Malformed, ask_again, judge_request, passes, read_verdict
from mind_distill.corpus.perspectives import STANDARD
from mind_distill.corpus.read import Corpus
from mind_distill.corpus.templates import problem_text
from mind_distill.evaluation.scoring import wilson
from mind_distill.generation.client import Client
from mind_distill.generation.endpoint import Failure, Reply, Request
from mind_distill.generation.journal import Journal


def pairs(limit: int) -> list[tuple[str, str, str, bool]]:
    """(problem, way, solution, right) for flawed rationales and the right ones they were made from."""
    ways = {p.key: p.instruction for p in STANDARD}
    found = []
    for lesson in Corpus.load("starter").take(limit, seed=0):
        right = {r.id: r for r in lesson.rationales}
        for flawed in lesson.rejected:
            for rationale, sound in ((flawed, False), (right[flawed.pair_of or ""], True)):
                found.append((problem_text(lesson.problem), ways[rationale.perspective], rationale.text, sound))
    return found


def measure(judge: Judge, client: Client, limit: int) -> Counter[tuple[bool, str]]:
    """Verdicts by what was shown: (right, pass | fail | unjudged)."""
    found = pairs(limit)
    waiting = {i: judge_request(judge, problem, way, text) for i, (problem, way, text, _) in enumerate(found)}
    verdicts: Counter[tuple[bool, str]] = Counter()
    for attempt in range(judge.retries + 1):
        again: dict[int, tuple[Request, str]] = {}
        owners = {id(request): i for i, (request, _) in waiting.items()}

        def done(request: Request, answer: Reply | Failure) -> None:
            i = owners[id(request)]  # noqa: B023 - called within this round
            text = "" if isinstance(answer, Failure) else answer.text
            try:
                passed = passes(read_verdict(text, waiting[i][1]), judge.minimum)  # noqa: B023
                verdicts[found[i][3], "pass" if passed else "fail"] += 1
            except Malformed as fault:
                again[i] = (ask_again(judge, request, text, str(fault)), waiting[i][1])  # noqa: B023

        client.ask((request for request, _ in waiting.values()), done)
        waiting = again
        if attempt == judge.retries:
            for i in waiting:
                verdicts[found[i][3], "unjudged"] += 1
    return verdicts


def share(part: int, whole: int) -> str:
    if not whole:
        return "none judged"
    low, high = wilson(part, whole)
    return f"{part} of {whole} ({part / whole:.0%}, {low:.0%} to {high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--key-env")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--retries", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--unstructured", action="store_true", help="for servers without response_format: mind serve")
    options = parser.parse_args()
    values: dict[str, Any] = {
        "id": "judge",
        "base_url": options.base_url,
        "model": options.model,
        "retries": options.retries,
        "structured": not options.unstructured,
    }
    values |= {"key_env": options.key_env, "sampling": {"temperature": 0, "max_tokens": options.max_tokens}}
    judge = Judge.resolve(values, "judge")
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite") as journal:
        client = Client(journal)
        client.check(judge)
        found = measure(judge, client, options.limit)
    flawed, right = (sum(found[sound, verdict] for verdict in ("pass", "fail")) for sound in (False, True))
    unjudged = found[False, "unjudged"] + found[True, "unjudged"]
    print(f"false accepts: {share(found[False, 'pass'], flawed)}")
    print(f"false rejects: {share(found[True, 'fail'], right)}")
    print(f"unjudged: {share(unjudged, found.total())}")


if __name__ == "__main__":
    main()
