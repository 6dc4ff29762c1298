"""`mind compare --plan`: cells, steps, tokens, hours and memory for a given machine, without a model.

An estimate from throughputs: measured ones for two CPU cores, assumed ones for GPUs. What it assumes:

- Training with LoRA takes 4 FLOP a weight and token read, prompts included (2 forward, 2 back through frozen weights), and a
  method that warms up reads every rationale once more without gradient (2 FLOP). MIND's second reading of the selected paths
  and the backward passes that it spares for the others are about as much, and both left out.
- A GPU reaches 30 % of its peak in bfloat16 while training, but takes at least 4 ms a layer to read `micro_batch` texts; while it
  answers, every new token of a batch takes the time to read the weights at 25 % of its bandwidth, at least 0.9 ms a layer. The
  least times are what small students take. Several GPUs of a cell share its training; one of them answers.
- Two CPU cores with AVX512-BF16 train 300 target tokens a second (measured: 250 to 420) and write 200 tokens a second at 135M
  (measured: 200 to 500, with 16 to 64 texts at a time).
- An answer is 0.4 of the tokens it may have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mind_distill.comparison.prepare import Prepared, Stage
from mind_distill.comparison.run import Study
from mind_distill.comparison.settings import StudySettings, StudyStudent
from mind_distill.errors import UserError
from mind_distill.methods.base import Method
from mind_distill.student.load import find_student
from mind_distill.tasks.base import find_benchmark, load_benchmark

ANSWER_SHARE, TRAINING_USE, ANSWERING_USE = 0.4, 0.30, 0.25
READ_LAYER, WRITE_LAYER = 4e-3, 0.9e-3  # seconds
STARTUP = 15.0  # seconds a cell for loading libraries and weights


class Machine(NamedTuple):
    """A device: FLOP/s it reaches in training, what it writes, its memory in GiB, and how many of it there are."""

    name: str
    training: float
    bandwidth: float  # bytes/s that answering reaches on a GPU; 0 for a CPU
    memory: float
    devices: int

    def trains(self, work: float, calls: float, layers: int) -> float:
        """Seconds for so many FLOP in so many readings of a micro-batch."""
        least = calls * layers * READ_LAYER if self.bandwidth else 0.0
        return max(work / self.training, least)

    def answers(self, new_tokens: float, parameters: float, batch: int, layers: int) -> float:
        """Seconds for so many new tokens of all answers together."""
        if not self.bandwidth:
            return new_tokens * parameters / CPU_WRITES
        return new_tokens / batch * max(2 * parameters / self.bandwidth, layers * WRITE_LAYER)


# Peak bfloat16 FLOP/s without sparsity, memory bandwidth and size, from the vendors' data sheets.
_GPUS = {
    "A100-40G": (312e12, 1.555e12, 40),
    "A100-80G": (312e12, 2.0e12, 80),
    "H100-80G": (989e12, 3.35e12, 80),
    "H200": (989e12, 4.8e12, 141),
    "L4": (121e12, 0.3e12, 24),
    "RTX4090": (165e12, 1.0e12, 24),
}
CPU_TRAINS = 300 * 2.4 * 4 * 135e6  # FLOP/s: 300 target tokens a second, each with 1.4 tokens of prompt, at 135M
CPU_WRITES = 200 * 135e6  # weights x new tokens a second


class Shape(NamedTuple):
    """What memory depends on in a decoder."""

    parameters: float
    layers: int
    hidden: int
    intermediate: int
    keys: int  # width of the keys of all heads
    vocabulary: int


_SHAPES = {
    "Qwen2.5-1.5B": Shape(1.54e9, 28, 1536, 8960, 256, 151936),
    "Qwen2.5-7B": Shape(7.62e9, 28, 3584, 18944, 512, 152064),
    "Llama-3.1-8B": Shape(8.03e9, 32, 4096, 14336, 1024, 128256),
}


class Line(NamedTuple):
    """A row of one student in the plan."""

    student: str
    row: str
    cells: int
    steps: int
    target_tokens: int
    hours: float
    memory_gib: float | None


class Plan(NamedTuple):
    """What a study would take; `hours` is the wall time with every device busy."""

    machine: Machine
    lines: list[Line]
    cells: int
    device_hours: float
    hours: float
    estimated: list[str]


def plan(study: Study, hardware: str) -> Plan:
    """The plan of a study for `hardware`, for instance 2xA100-80G or cpu."""
    settings = study.settings
    machine = find_machine(hardware or settings.hardware or "cpu")
    questions = _new_tokens(settings)
    lines = []
    for student in settings.all_students():
        shape, parameters = find_shape(student)
        for row in dict.fromkeys(one.cell.row for one in study.cells):
            cells = [one for one in study.cells if (one.cell.student, one.cell.row) == (student.title, row)]
            layers = shape.layers if shape else 32
            training = sum(_training(one, machine, parameters, layers) for one in cells)
            training /= min(settings.devices_per_cell, machine.devices)
            answering = machine.answers(questions, parameters, settings.evaluation.batch, layers)
            stages = [stage for one in cells for stage in one.stages]
            lines.append(
                Line(
                    student=student.title,
                    row=row,
                    cells=len(cells),
                    steps=max((sum(s.amount.steps for s in one.stages) for one in cells), default=0),
                    target_tokens=max((sum(s.amount.target for s in one.stages) for one in cells), default=0),
                    hours=(training + len(cells) * (STARTUP + answering)) / 3600,
                    memory_gib=_memory(shape, stages, settings.devices_per_cell) if shape else None,
                )
            )
    busy = sum(line.hours for line in lines)
    at_a_time = max(1, machine.devices // settings.devices_per_cell)
    together = at_a_time if settings.devices == "auto" else min(at_a_time, settings.devices)
    return Plan(machine, lines, len(study.cells), busy * settings.devices_per_cell, busy / together, study.estimated)


def find_machine(text: str) -> Machine:
    """The machine that a text such as 2xA100-80G or cpu names."""
    if text.lower() == "cpu":
        return Machine("two CPU cores", CPU_TRAINS, 0.0, 0.0, 1)
    found = re.fullmatch(r"(?:(\d+)\s*x\s*)?(\S+)", text.strip(), re.IGNORECASE)
    known = {name.lower(): name for name in _GPUS}
    name = known.get(found[2].lower()) if found else None
    if not found or name is None or found[1] == "0":
        raise UserError(
            f"Hardware '{text}' is not known. Give 'cpu', or a number and one of {', '.join(_GPUS)}: 2xA100-80G."
        )
    peak, bandwidth, memory = _GPUS[name]
    return Machine(text, peak * TRAINING_USE, bandwidth * ANSWERING_USE, memory, int(found[1] or 1))


def find_shape(student: StudyStudent) -> tuple[Shape | None, float]:
    """The student's shape, as far as it can be known without the hub, and its number of weights."""
    shape = next((shape for name, shape in _SHAPES.items() if name in student.student), None) or _local_shape(student)
    number = re.search(r"(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", student.student, re.IGNORECASE)
    named = float(number[1]) * (1e9 if number[2].lower() == "b" else 1e6) if number else None
    parameters = student.parameters or (shape.parameters if shape else named)
    if parameters is None:
        raise UserError(
            f"How many weights '{student.student}' has cannot be told from its name. Set students[].parameters, for instance 1.5e9."
        )
    return shape, parameters


def _local_shape(student: StudyStudent) -> Shape | None:
    try:
        folder = Path(find_student(student.student).base)
    except UserError:
        return None
    if not (folder / "config.json").is_file():
        return None
    values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    try:
        heads, hidden = int(values["num_attention_heads"]), int(values["hidden_size"])
        keys = int(values.get("num_key_value_heads") or heads) * int(values.get("head_dim") or hidden // heads)
        layers, inner, vocabulary = (int(values[k]) for k in ("num_hidden_layers", "intermediate_size", "vocab_size"))
    except KeyError:
        return None
    block = 2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * inner
    tied = 1 if values.get("tie_word_embeddings", True) else 2
    return Shape(layers * block + tied * vocabulary * hidden, layers, hidden, inner, keys, vocabulary)


def _new_tokens(settings: StudySettings) -> float:
    """New tokens of all answers of one cell."""
    limit = settings.evaluation.limit
    total = 0.0
    for name in settings.questions:
        benchmark = find_benchmark(name)
        items = benchmark.items or len(load_benchmark(name))
        asked = limit.get(name) if isinstance(limit, dict) else limit
        total += min(items, asked or items) * benchmark.max_new_tokens * ANSWER_SHARE
    return total


def _training(one: Prepared, machine: Machine, parameters: float, layers: int) -> float:
    """Seconds in which one device trains the cell."""
    seconds = 0.0
    for stage in one.stages:
        training, read = stage.recipe.training, stage.amount
        work = 4 * parameters * read.whole
        if type(stage.method).warm_up is not Method.warm_up:
            work += 2 * parameters * read.whole * stage.lessons / max(1, read.steps * training.problems_per_step)
        seconds += machine.trains(work, read.texts / training.micro_batch, layers)
    return seconds


def _memory(shape: Shape, stages: Sequence[Stage], devices: int) -> float:
    """GiB at the peak of training on one device: weights in bfloat16, adapter with gradient and two moments in float32,
    activations of `micro_batch` texts as long as the longest, and their logits."""
    weights = 2 * shape.parameters
    peak = weights
    for stage in stages:
        training = stage.recipe.training
        held = training.micro_batch * stage.amount.longest
        widths = 4 * shape.hidden + 2 * (shape.hidden + shape.keys) + 3 * (shape.hidden + shape.intermediate)
        adapter = 16 * training.lora.rank * shape.layers * widths
        activations = held * shape.layers * (16 * shape.hidden + 8 * shape.intermediate)
        peak = max(peak, weights + adapter + activations + held * shape.vocabulary * 10)
    return peak / 2**30


def show(found: Plan) -> str:
    """The plan for people."""
    head = ("student", "row", "cells", "steps", "target tokens", "hours", "memory")
    rows = [head]
    for line in found.lines:
        memory = f"{line.memory_gib:.1f} GiB" if line.memory_gib else "?"
        numbers = (str(line.cells), f"{line.steps:,}", f"{line.target_tokens:,}", f"{line.hours:.2f}", memory)
        rows.append((line.student, line.row, *numbers))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    small = [line for line in found.lines if found.machine.memory and (line.memory_gib or 0) > found.machine.memory]
    return "\n".join(
        [
            *lines,
            "",
            f"{found.cells} cells, about {found.hours:.1f} hours on {found.machine.name} ({found.device_hours:.1f} device hours). "
            "Steps and tokens are a cell's; hours are a row's.",
            "An estimate; `mind_distill/comparison/plan.py` says what it assumes"
            + (", and none of it was measured on a GPU." if found.machine.bandwidth else "."),
            *(
                f"No tokenizer of {student} on this machine: its tokens are counted from characters."
                for student in found.estimated
            ),
            *(f"{line.row} of {line.student} does not fit one device; lower training.micro_batch." for line in small),
        ]
    )


def values(found: Plan) -> dict[str, object]:
    """The plan for --json."""
    return {
        "machine": found.machine.name,
        "cells": found.cells,
        "hours": round(found.hours, 3),
        "device_hours": round(found.device_hours, 3),
        "rows": [line._asdict() for line in found.lines],
        "counted_from_characters": found.estimated,
    }
