"""The only training loop (section 3.4), on accelerate. It knows steps, gradients and checkpoints, and no method.

In several processes each reads its share of a step's problems; the gradients are added up once, after the last backward.
The wrapper of DistributedDataParallel would not do: it counts on one forward a backward, and here a read calls the model as
often as its selected paths need, which differs between the processes.
"""

from __future__ import annotations

import hashlib
import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from mind_distill.errors import Stopped
from mind_distill.methods.base import Method, Track
from mind_distill.processes import Processes
from mind_distill.records import Lesson
from mind_distill.runs import RunDirectory
from mind_distill.state import State
from mind_distill.student.load import Student
from mind_distill.student.sharding import shard_layers, sharded
from mind_distill.training.checkpoint import clear_remains
from mind_distill.training.interrupt import Interrupt, obey
from mind_distill.training.optim import all_finite, clip, gradient_norm, learning_rate, make_optimizer
from mind_distill.training.order import lessons_of, steps_per_epoch
from mind_distill.training.settings import TrainingSettings
from mind_distill.training.share import Fault, Reading, Share, by_adapter
from mind_distill.training.snapshot import Snapshot
from mind_distill.training.watch import Watch, summary


class Trainer:
    """One training run: the student and the method step by step, everything that matters in each checkpoint.

    The order of lessons is a function of (seed, epoch), so a step number alone tells where a resumed run goes on.
    """

    def __init__(
        self,
        student: Student,
        method: Method,
        lessons: Sequence[Lesson],
        probe: Sequence[Lesson],
        settings: TrainingSettings,
        directory: RunDirectory,
        track: Track,
        processes: Processes | None = None,
    ) -> None:
        self.student, self.method, self.lessons, self.probe = student, method, lessons, probe
        self.settings, self.directory, self.track = settings, directory, track
        self.processes = processes or Processes()
        self.steps_per_epoch = steps_per_epoch(len(lessons), settings.problems_per_step)
        self.steps = settings.max_steps or settings.epochs * self.steps_per_epoch
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            log_with=list(settings.trackers) or None,
            project_dir=str(directory.path / "trackers"),
        )
        if settings.trackers:
            self.accelerator.init_trackers("mind-distill")
        splits_layers = self.processes.count > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
        if splits_layers:
            shard_layers(student.model, os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower() != "false")
            student.in_step_with = self.processes
        self.parameters = student.trainable()
        self.optimizer = make_optimizer(list(self.parameters.values()), settings)
        self.share = Share(student, method, self.processes, settings.seed)
        self.snapshot = Snapshot(self.parameters, self.optimizer, method, self.processes)
        subjects = {lesson.problem.id: lesson.problem.subject for lesson in lessons}
        self.watch = Watch(subjects, self.steps, method.weighs)
        self.step = 0
        self.refused = 0  # steps in a row up to now
        self.passed_over: list[str] = []  # damaged checkpoints

    def fit(self, resume: bool) -> None:
        """Train to the last step; on Ctrl-C or SIGTERM finish the step, save, and raise what was asked."""
        self.student.model.train()
        torch.manual_seed(self.settings.seed)
        with self.processes.first_before_others():
            self.method.prepare([*self.lessons, *self.probe], self.track)
        if not (self.processes.ask_first(lambda: resume) and self._restore()):
            self._begin()
        with self.track("Training the student", self.steps) as advance, Interrupt() as interrupt:
            advance(self.step)
            while self.step < self.steps:
                asked = self._take_step(interrupt)
                advance(1)
                last = self.step == self.steps
                if self.step % self.steps_per_epoch == 0 or last:
                    self._read_probe(math.ceil(self.step / self.steps_per_epoch))
                stuck = self.refused >= self.settings.refuse_limit
                if self.step % self.settings.save_every == 0 or last or asked or stuck:
                    self._save()
                if stuck:
                    self._give_up()
                obey(asked)
        if self.settings.trackers:
            self.accelerator.end_training()
        self.accelerator.free_memory()

    def _begin(self) -> None:
        """Before the first step: the method's warm-up, which every process does and the first one's is kept."""
        self.method.warm_up(self.student, self.lessons, self.track)
        if self.processes.count > 1:
            state = self.method.state_dict()
            values = self.processes.ask_first(lambda: state.values)
            self.processes.take_first([tensor.detach() for tensor in state.tensors.values()])
            self.method.load_state_dict(State(state.tensors, values))
        self._read_probe(0)
        self._save()

    def _take_step(self, interrupt: Interrupt) -> int:
        """One step, taken or refused; the signal that was noted meanwhile by any process."""
        begun = time.perf_counter()
        epoch, lessons = lessons_of(self.lessons, self.settings.problems_per_step, self.settings.seed, self.step)
        before = self.snapshot.method_values()
        gathered = self._set_aside()
        reading = self.share.read(lessons, self.step, epoch, interrupt.asked)
        norm, faults = self._add_up(reading, lessons)
        self.step += 1
        if faults:
            self._refuse(faults, before)
            return reading.signal or self._alone(interrupt)
        self._put_back(gathered)
        rate = learning_rate(self.settings, self.step - 1, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        clip(list(self.parameters.values()), norm, self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.refused = 0
        extra = self.method.after_step(self.step)
        self._refuse_broken_weights([lesson.problem.id for lesson in lessons])
        numbers = {"grad_norm": float(norm), "lr": rate, **extra}
        self._log(epoch, reading, numbers, time.perf_counter() - begun)
        return reading.signal or self._alone(interrupt)

    def _alone(self, interrupt: Interrupt) -> int:
        """A signal noted since the reading; with others it waits for the next step, when all hear of it."""
        return interrupt.asked if self.processes.count == 1 else 0

    def _set_aside(self) -> dict[str, Tensor]:
        """The gradient the method has gathered over earlier steps, taken away so that this step's stands alone."""
        gathered = {name: p.grad for name, p in self.method.trained().items() if p.grad is not None}
        for parameter in self.method.trained().values():
            parameter.grad = None
        return gathered

    def _put_back(self, gathered: dict[str, Tensor]) -> None:
        for name, parameter in self.method.trained().items():
            if name in gathered:
                parameter.grad = gathered[name] if parameter.grad is None else gathered[name] + parameter.grad

    def _add_up(self, reading: Reading, lessons: list[Lesson]) -> tuple[Tensor, list[Fault]]:
        """Sum the gradients over the processes; the student's norm, and everything of the step that is not finite."""
        replicated = [p for p in (*self.parameters.values(), *self.method.trained().values()) if not sharded(p)]
        if self.processes.count > 1:
            present = self.processes.gather("".join("0" if p.grad is None else "1" for p in replicated))
            for parameter, flags in zip(replicated, zip(*present, strict=True), strict=True):
                if parameter.grad is None and "1" in flags:
                    parameter.grad = torch.zeros_like(parameter)
            self.processes.add_up([p.grad for p in replicated if p.grad is not None])
        norm = gradient_norm(list(self.parameters.values()), self.processes)
        faults = list(reading.faults)
        ids = [lesson.problem.id for lesson in lessons]
        if not faults and not bool(torch.isfinite(norm)):
            faults.append(Fault("student's gradient", ids))
        if not faults and not all_finite([p.grad for p in self.method.trained().values() if p.grad is not None]):
            faults.append(Fault("method's gradient", ids))
        return norm, faults

    def _refuse(self, faults: list[Fault], before: State) -> None:
        """Leave student, method and optimizers as they were before the step, and write down why."""
        self.optimizer.zero_grad(set_to_none=True)
        self.method.load_state_dict(before)
        self.method.setting.events.clear()
        self.refused += 1
        for what, ids in faults:
            message = f"The {what} is not finite in step {self.step} (problems {', '.join(ids)}); the step was refused."
            kind = "non_finite_gradient" if what.endswith("gradient") else "non_finite_loss"
            event = {"step": self.step, "event": kind, "message": message, "ids": ids}
            self.directory.append("events.jsonl", event)
        self.last_fault = message

    def _refuse_broken_weights(self, ids: list[str]) -> None:
        """A finite gradient can still throw the weights out of range; then there is nothing to go on with."""
        broken = not all_finite([*self.parameters.values(), *self.method.trained().values()])
        if not any(self.processes.gather(broken)):
            return
        message = f"Step {self.step} left weights that are not finite (problems {', '.join(ids)})."
        event = {"step": self.step, "event": "non_finite_weights", "message": message, "ids": ids}
        self.directory.append("events.jsonl", event)
        raise Stopped(
            f"{message} They were not saved; the checkpoint before is whole. --resume goes on from it; to go on with a lower "
            "training.learning_rate, add --force."
        )

    def _give_up(self) -> None:
        raise Stopped(
            f"{self.refused} steps in a row were refused. {self.last_fault} The weights are those from before them, and saved. "
            "--resume goes on behind them; to go on with a lower training.learning_rate, add --force."
        )

    def _log(self, epoch: int, reading: Reading, numbers: dict[str, Any], seconds: float) -> None:
        loss = reading.total - reading.parts.get("meta", 0.0)
        watched, events = self.watch.step(loss, reading.visits)
        line = {"step": self.step, "epoch": epoch + 1, "loss": loss, **reading.parts, **numbers}
        line |= summary(reading.visits) | watched
        line = {k: round(v, 6) if isinstance(v, float) and k != "lr" else v for k, v in line.items()}
        self.directory.append("metrics.jsonl", line | {"by_subject": self.watch.by_subject(reading.visits)})
        for visit in reading.visits:
            self.directory.append("visits.jsonl", {"step": self.step, **visit})
        for event in [*self.method.setting.events, *events]:
            self.directory.append("events.jsonl", {"step": self.step, **event})
        self.method.setting.events.clear()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1024)
        work = {"tokens": reading.tokens, "computed": reading.work.computed, "padding": reading.work.padding}
        work["rss"] = peak
        if torch.cuda.is_available():
            work["gpu"] = torch.cuda.max_memory_allocated() >> 20
        self.directory.append("timing.jsonl", {"step": self.step, "seconds": round(seconds, 3), **work})
        if self.settings.trackers:
            for k, alpha in enumerate(line["alpha"]):
                line[f"alpha/{k}"] = alpha
            kept = {key: value for key, value in line.items() if isinstance(value, int | float)}
            self.accelerator.log(kept, step=self.step)

    def _read_probe(self, epoch: int) -> None:
        """Mean loss per perspective on the lessons that are never trained, to probe.jsonl."""
        if not self.probe:
            return
        in_step = self.student.in_step_with is not None  # then every process reads every lesson
        mine = range(len(self.probe)) if in_step else range(self.processes.rank, len(self.probe), self.processes.count)
        rows: list[tuple[int, list[float | None]]] = []
        self.student.model.eval()
        with torch.no_grad(), self.track("Reading the probe lessons", len(mine)) as advance:
            for i in mine:
                row: list[float | None] = []
                for part in by_adapter(self.method.probe_paths(self.probe[i])):
                    batch = self.student.lay_out([self.probe[i]], [part])
                    nll, valid = self.student.read(batch).nll[0].tolist(), batch.valid[0].tolist()
                    read = [x if v else None for x, v in zip(nll, valid, strict=True)]
                    row = read if not row else [old if new is None else new for old, new in zip(row, read, strict=True)]
                rows.append((i, row))
                advance(1)
        self.student.model.train()
        everyone = [rows] if in_step else self.processes.gather(rows)
        ordered = [row for _, row in sorted((i, row) for part in everyone for i, row in part)]
        means = []
        for column in zip(*ordered, strict=True):
            known = [x for x in column if x is not None]
            means.append(round(math.fsum(known) / len(known), 6) if known else None)
        line = {"step": self.step, "epoch": epoch, "lessons": len(self.probe), "nll": means}
        self.directory.append("probe.jsonl", line)

    def _save(self) -> None:
        settings = self.directory.path / "settings.yaml"
        recipe = hashlib.sha256(settings.read_bytes()).hexdigest() if settings.is_file() else None
        values = {"recipe": recipe, "refused": self.refused, "watch": self.watch.state}
        values["lines"] = self.directory.line_sizes()
        self.snapshot.save(self.directory.path / "checkpoints", self.step, values, self.settings.keep_checkpoints)

    def _restore(self) -> bool:
        """Take everything from the newest whole checkpoint; False if there is none."""
        folder = self.directory.path / "checkpoints"
        self.processes.ask_first(lambda: clear_remains(folder))
        values, self.passed_over = self.snapshot.restore(folder)
        if values is None:
            self.directory.cut_lines({})
            return False
        self.step, self.refused, self.watch.state = int(values["step"]), values["refused"], values["watch"]
        self.directory.cut_lines(values["lines"])
        return True
