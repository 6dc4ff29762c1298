"""The embedded student through other harnesses and through ours: same prompts, items, cap and end; texts and speed.

    python benchmarks/evaluate_vs_lm_eval.py --lm-eval /path/to/its/venv/bin/python [--lighteval /path/to/its/venv/bin/python]
        [--items 40] [--sets starter-easy,gsm8k]

The other harnesses are lm-evaluation-harness (hf backend) and lighteval (accelerate backend); each is run at each of
--batches and taken at its best. Items per second count encoding and answering, and on their side their own metrics and
records; loading the models is left out everywhere. The grader is ours for all texts.
In bfloat16 the order of a sum decides between two likely tokens now and then, and with it the rest of that text, on every
side whenever its batch changes; `--precision fp32` shows what differs beyond that.
gsm8k, svamp and csqa are read from $MIND_DATA, a folder with the benchmarks' files, else from the hub.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mind_distill.threads import busy_cores, stop_spinning

stop_spinning()

import torch  # noqa: E402  (the thread settings must come first)

from mind_distill.generation.base import Generation  # noqa: E402
from mind_distill.generation.local import LocalGenerator  # noqa: E402
from mind_distill.records import Problem  # noqa: E402
from mind_distill.student.load import Student, find_student, load_model, load_tokenizer  # noqa: E402
from mind_distill.tasks.base import find_benchmark, load_benchmark  # noqa: E402
from mind_distill.tasks.prompts import user_turn  # noqa: E402
from mind_distill.tasks.workers import grade_many  # noqa: E402

LEGS = {"lm-eval": "lm_eval_leg.py", "lighteval": "lighteval_leg.py"}  # each runs in its harness's own environment
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{turn}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["<|im_end|>"], max_gen_toks: {cap}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


def main() -> None:
    """Run every side on each set and print the table."""
    asked = _arguments()
    threads = asked.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    print(
        f"machine: {os.cpu_count()} cores, {busy_cores(2.0):.1f} busy before the start, {threads} threads, {asked.precision}"
    )
    found = find_student("embedded")
    student = Student(
        load_model(found, asked.precision, merge=False), load_tokenizer(found.base), "sentence", 1, 4, 4096
    )
    for name in asked.sets.split(","):
        problems = load_benchmark(name)[: asked.items]
        cap = min(asked.cap or 10**9, find_benchmark(name).max_new_tokens)
        ours = _ours(student, problems, cap, asked.batch)
        right = _right(problems, ours["texts"])
        _print_ours(name, cap, asked.batch, ours, right)
        for harness, python in asked.harnesses.items():
            theirs = {}
            for batch in map(int, asked.batches.split(",")):
                request = {"model": found.base, "dtype": DTYPES[asked.precision], "task": "compared"}
                request |= {"cap": cap, "batch": batch, "threads": threads}
                theirs[batch] = _theirs(harness, python, request, student, problems)
                _print_theirs(harness, batch, problems, ours, right, theirs[batch])
            _print_best(harness, ours, theirs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lm-eval", help="the Python of an environment with lm-eval[hf]")
    parser.add_argument("--lighteval", help="the Python of an environment with lighteval and accelerate")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--sets", default="starter-easy")
    parser.add_argument("--batch", type=int, default=64, help="ours")
    parser.add_argument("--batches", default="8,16,32", help="theirs")
    parser.add_argument("--cap", type=int, help="new tokens, if fewer than the benchmark's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    asked = parser.parse_args()
    pythons = {"lm-eval": asked.lm_eval, "lighteval": asked.lighteval}
    asked.harnesses = {harness: python for harness, python in pythons.items() if python}
    if not asked.harnesses:
        parser.error("nothing to compare with: give --lm-eval PYTHON, --lighteval PYTHON or both")
    return asked


def _ours(student: Student, problems: list[Problem], cap: int, batch: int) -> dict[str, Any]:
    answers: dict[int, Generation] = {}
    wall, processor = time.perf_counter(), time.process_time()
    prompts = [student.layout.encode_prompt(problem) for problem in problems]
    LocalGenerator(student.model, student.tokenizer, batch).generate(prompts, cap, answers.__setitem__)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    texts = [answers[i].text for i in range(len(problems))]
    return {
        "seconds": wall,
        "processor": processor,
        "texts": texts,
        "prompts": prompts,
        "tokens": sum(g.tokens for g in answers.values()),
        "truncated": sum(g.truncated for g in answers.values()),
    }


def _theirs(
    harness: str, python: str, request: dict[str, Any], student: Student, problems: list[Problem]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "items" / "test.jsonl"
        data.parent.mkdir()
        rows = ({"turn": user_turn(p, student.answer_format), "answer": p.answer} for p in problems)
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (Path(folder) / "compared.yaml").write_text(TASK.format(name=request["task"], data=data, cap=request["cap"]))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HOME": folder}
        done = subprocess.run(
            [python, str(Path(__file__).with_name(LEGS[harness]))],
            input=json.dumps(request | {"folder": folder, "items": str(data)}),
            capture_output=True,
            text=True,
            env=environment,
        )
        if done.returncode:
            sys.exit(f"{harness} failed:\n{done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def _right(problems: list[Problem], texts: list[str]) -> list[bool]:
    rows = [(p.answer, text, p.kind, p.choices) for p, text in zip(problems, texts, strict=True)]
    return [verdict.correct for verdict in grade_many(rows)]


def _print_ours(name: str, cap: int, batch: int, ours: dict[str, Any], right: list[bool]) -> None:
    n = len(right)
    print(f"\n{name}: {n} items, at most {cap} new tokens; {ours['truncated']} of our answers were cut there")
    print(
        f"  ours, batch {batch}: {n / ours['seconds']:.2f} items/s ({ours['tokens'] / ours['seconds']:.0f} tokens/s, "
        f"processor {ours['processor']:.0f} s), {sum(right)} right"
    )


def _print_theirs(
    harness: str, batch: int, problems: list[Problem], ours: dict[str, Any], right: list[bool], theirs: dict[str, Any]
) -> None:
    n, their_right = len(problems), _right(problems, theirs["texts"])
    same_text = sum(a.strip() == b.strip() for a, b in zip(ours["texts"], theirs["texts"], strict=True))
    same_verdict = sum(a == b for a, b in zip(right, their_right, strict=True))
    print(
        f"  {harness}, batch {batch}: {n / theirs['seconds']:.2f} items/s (processor {theirs['processor']:.0f} s), "
        f"{sum(their_right)} right; prompts {'equal' if theirs['prompts'] == ours['prompts'] else 'DIFFER'}; of {n}, "
        f"{same_text} texts and {same_verdict} verdicts equal",
        flush=True,
    )


def _print_best(harness: str, ours: dict[str, Any], theirs: dict[int, dict[str, Any]]) -> None:
    best = min(theirs, key=lambda size: theirs[size]["seconds"])
    wall = theirs[best]["seconds"] / ours["seconds"]
    processor = theirs[best]["processor"] / ours["processor"]
    print(
        f"  ours / {harness} at its best (batch {best}): {wall:.1f} times the items per second, "
        f"{processor:.1f} by processor time"
    )


if __name__ == "__main__":
    main()
