"""A MIND step beside TRL's SFTTrainer on the same eight rationales: speed, peak memory, equal loss, distance to the limit.

    python benchmarks/train_vs_trl.py [--precision bf16|fp32] [--rounds 5] [--problems 4] [--student FOLDER]

TRL's settings first compete among themselves, one process after another, and the fastest goes on; all of them at once would
not fit into 24 GB. Then every contestant is a process of its own that holds the same student, LoRA, precision and threads; in
each round they take one step each in turn (problems x 8 rationales, forward, backward, clip, AdamW), the others asleep. Printed
are medians over the rounds (of HEATS steps for TRL's slower settings), rationales a second, the peak memory (resident; the
GPU's where there is one), the loss of the same texts as each contestant sees it, the share of a plain matrix product's speed,
and ratios to the fastest TRL and to a plain padded loop.
Needs `pip install trl`; without it TRL's rows are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from mind_distill.threads import busy_cores, choose, stop_spinning

stop_spinning()

CONTESTANTS = {
    "trl padded, 8 a batch": {"kind": "trl", "batch": 8},
    "trl padded, 8 a batch, autocast": {"kind": "trl", "batch": 8, "autocast": True},
    "trl padding-free, 8 a batch": {"kind": "trl", "batch": 8, "padding_free": True},
    "trl, 1 a batch": {"kind": "trl", "batch": 1},
    "plain padded loop": {"kind": "ours", "method": {"name": "uniform"}, "share": False},
    "uniform, 8 of 8": {"kind": "ours", "method": {"name": "uniform"}},
    "mind, as it comes": {"kind": "ours", "method": {"name": "mind"}},
    "mind, 8 of 8 paths": {"kind": "ours", "method": {"name": "mind", "select": "all"}},
    "mind, 4 of 8 paths": {"kind": "ours", "method": {"name": "mind", "select": "topk", "top_k": 4}},
}

HEATS = 3  # steps of each of TRL's settings


def main() -> None:
    """Run every contestant in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--problems", type=int, default=4)
    parser.add_argument("--student", default="embedded")
    parser.add_argument("--threads", type=int, help="by default both cores, or one where the other is busy")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(CONTESTANTS[options.worker], options)
        return
    busy = busy_cores(2.0)
    options.threads = options.threads or choose("auto")
    seconds: dict[str, list[float]] = {}
    ready: dict[str, Any] = {}
    ends: dict[str, dict[str, Any]] = {}
    heats = [n for n, c in CONTESTANTS.items() if c["kind"] == "trl"] if importlib.util.find_spec("trl") else []
    for name in heats:
        race([name], HEATS, options, seconds, ready, ends)
    fastest = min((n for n in heats if n in seconds), key=lambda n: statistics.median(seconds[n]), default=None)
    final = [n for n, c in CONTESTANTS.items() if c["kind"] != "trl" or n == fastest]
    race(final, options.rounds, options, seconds, ready, ends)
    show(seconds, ready, ends, busy, options)


def race(
    names: list[str],
    rounds: int,
    options: argparse.Namespace,
    seconds: dict[str, list[float]],
    ready: dict[str, Any],
    ends: dict[str, Any],
) -> None:
    """Steps in turn, `rounds` each; what a contestant said before and after them, and its seconds, go into the three."""
    workers = {name: start(name, options) for name in names}
    for name, worker in list(workers.items()):
        line = worker.stdout.readline()
        if line.startswith("{"):
            ready[name], seconds[name] = json.loads(line), []
        else:
            print(f"{name}: does not run here ({' '.join(line.split())[:160]})")
            workers.pop(name).kill()
    for _ in range(rounds):
        for name, worker in workers.items():
            print("step", file=worker.stdin, flush=True)
            seconds[name].append(json.loads(worker.stdout.readline())["seconds"])
    for name, worker in workers.items():
        print("end", file=worker.stdin, flush=True)
        ends[name] = json.loads(worker.stdout.readline())
        worker.wait()


def start(name: str, options: argparse.Namespace) -> subprocess.Popen[str]:
    words = ["--precision", options.precision, "--problems", str(options.problems), "--student", options.student]
    words += ["--threads", str(options.threads)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, __file__, "--worker", name, *words],
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL if not os.environ.get("MIND_BENCH_VERBOSE") else None,
        text=True,
    )


def show(
    seconds: dict[str, list[float]],
    ready: dict[str, Any],
    ends: dict[str, Any],
    busy: float,
    options: argparse.Namespace,
) -> None:
    """The table, the ratios that the project promises, and the distance to this machine's matrix product."""
    first = next(iter(ready.values()))
    rationales = 8 * options.problems
    print(
        f"machine: {os.cpu_count()} cores, {busy:.1f} busy before the start, {first['threads']} threads; {options.precision}; "
        f"{options.problems} problems x 8 rationales a step, {first['tokens']} tokens with prompts, medians of {options.rounds}"
    )
    print(f"matrix product on {first['device']}: {first['peak']:.0f} GFLOP/s")
    print(
        f"{'':30s} {'s/step':>7s} {'rat./s':>7s} {'peak MB':>8s} {'over load':>9s} {'loss':>8s} {'GFLOP/s':>8s} {'of peak':>8s}"
    )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        flops = ends[name]["flops"] / median / 1e9
        print(
            f"{name:30s} {median:7.2f} {rationales / median:7.2f} {ends[name]['rss']:8.0f} "
            f"{ends[name]['rss'] - ready[name]['rss']:9.0f} {ready[name]['loss']:8.4f} {flops:8.0f} {flops / first['peak']:8.0%}"
        )
    for name, end in ends.items():
        if "overhead" in end:
            print(
                f"{name}: {end['selected']:.1f} of 8 paths selected; MetaNet, scoring and bookkeeping {end['overhead']:.1%} of a "
                f"step; {end['padding']:.0%} of the tokens run are padding; {end['saved']:.0%} fewer run than text by text"
            )
    fastest = min((n for n in medians if n.startswith("trl")), key=medians.get, default=None)
    for name in medians:
        if fastest and not name.startswith("trl"):
            memory = ends[name]["rss"] / ends[fastest]["rss"]
            print(
                f"{name} : fastest TRL ({fastest}) = {medians[fastest] / medians[name]:.2f} x the speed, {memory:.2f} x its peak; "
                f": plain padded loop = {medians['plain padded loop'] / medians[name]:.2f} x"
            )


def work(how: dict[str, Any], options: argparse.Namespace) -> None:
    """One contestant: says its loss and its memory once loaded, then takes a step for each line it reads."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    step, loss, tokens, extra = (trl_step if how["kind"] == "trl" else our_step)(how, options)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = memory()
    first = loss()
    with FlopCounterMode(display=False) as counter:
        step()
    peak = matrix_product(device, options.precision)
    said = {"loss": first, "rss": loaded, "threads": torch.get_num_threads(), "tokens": tokens}
    print(json.dumps({**said, "peak": peak, "device": device_name(device)}), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        begun = time.perf_counter()
        step()
        if device == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"seconds": time.perf_counter() - begun}), flush=True)
    print(json.dumps({"rss": memory(), "flops": counter.get_total_flops(), **extra()}), flush=True)


def memory() -> float:
    """Peak memory in MB: the GPU's where there is one, else this process's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "this CPU"


def matrix_product(device: str, precision: str) -> float:
    """GFLOP/s of a plain product of the student's feed-forward shape: the limit that a step is measured against."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(896, 576, dtype=dtype, device=device), torch.randn(576, 1536, dtype=dtype, device=device)
    rates = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(20):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        rates.append(20 * 2 * 896 * 576 * 1536 / (time.perf_counter() - begun) / 1e9)
    return statistics.median(rates)


def settings(how: dict[str, Any], options: argparse.Namespace) -> Any:
    from mind_distill.training.settings import resolve_recipe

    training = {"precision": options.precision, "micro_batch": 8, "learning_rate": 1e-4}
    values = {"student": options.student, "method": how.get("method", {"name": "uniform"}), "training": training}
    return resolve_recipe({**values, "answer_format": "sentence"}, "benchmark")


@contextmanager
def silent(description: str, total: int) -> Any:
    """No progress bars in a benchmark."""
    yield lambda n: None


def our_step(how: dict[str, Any], options: argparse.Namespace) -> Any:
    """Steps of our loop: method.loss, backward, clip, AdamW, after_step."""
    import torch

    from mind_distill import Corpus
    from mind_distill.methods.base import Setting
    from mind_distill.methods.table import make_method
    from mind_distill.student import reading
    from mind_distill.student.packages import cache_folder
    from mind_distill.training.run import load_student

    if how.get("share") is False:
        reading.shares_prefixes = lambda model: False
    lessons = Corpus.load("starter", slice="easy").take(options.problems)
    recipe = settings(how, options)
    student = load_student(recipe, 8)
    setting = Setting(lessons.perspectives, recipe.form, 0, recipe.encoder, cache_folder(), str(student.device))
    method = make_method(recipe.method, setting)
    method.prepare(lessons, silent)
    student.model.train()
    method.warm_up(student, lessons, silent)
    optimizer = torch.optim.AdamW(student.trainable().values(), lr=1e-4)
    reading_seconds = {"read": 0.0, "backward": 0.0, "optimizer": 0.0, "all": 0.0}
    plain_read = student.read
    taken = 0
    selected: list[int] = []  # paths, at each visit

    def timed_read(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        view = plain_read(*args, **kwargs)
        reading_seconds["read"] += time.perf_counter() - begun
        return view

    student.read = timed_read

    def step() -> None:
        nonlocal taken
        begun = time.perf_counter()
        for lesson in lessons:
            batch = student.lay_out([lesson], [method.paths(lesson, random.Random(0))])
            loss = method.loss(student, batch)
            selected.extend(sum(visit["selected"]) for visit in loss.visits)
            before = time.perf_counter()
            (loss.total / len(lessons)).backward()
            reading_seconds["backward"] += time.perf_counter() - before
        before = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(student.trainable().values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        reading_seconds["optimizer"] += time.perf_counter() - before
        taken += 1
        method.after_step(taken)
        reading_seconds["all"] += time.perf_counter() - begun

    def loss() -> float:
        with torch.no_grad():
            rows = [plain_read(student.lay_out([x], [setting.full_paths(x)])).nll for x in lessons]
        return float(torch.cat(rows).mean())

    def extra() -> dict[str, float]:
        timed = sum(reading_seconds[part] for part in ("read", "backward", "optimizer"))
        work = student.work
        saved = 1 - work.computed / work.alone
        paths = statistics.fmean(selected)
        overhead = 1 - timed / reading_seconds["all"]
        return {"selected": paths, "overhead": overhead, "padding": work.padding / work.computed, "saved": saved}

    batches = [student.lay_out([x], [setting.full_paths(x)]) for x in lessons]
    tokens = sum(int(b.lengths[b.valid].sum()) for b in batches)
    return step, loss, tokens, extra


def trl_step(how: dict[str, Any], options: argparse.Namespace) -> Any:
    """Steps of TRL's SFTTrainer on the same token ids and the same trained tokens, with the same LoRA."""
    import tempfile

    import torch
    from datasets import Dataset
    from transformers.utils import logging
    from trl import SFTConfig, SFTTrainer

    from mind_distill import Corpus
    from mind_distill.methods.base import Setting
    from mind_distill.training.run import load_student

    logging.set_verbosity_error()
    lessons = Corpus.load("starter", slice="easy").take(options.problems)
    student = load_student(settings(how, options), 8)
    model = plain_lora(student.model)
    setting = Setting(lessons.perspectives, "sentence", 0)
    rows = []
    for lesson in lessons:
        batch = student.lay_out([lesson], [setting.full_paths(lesson)])
        for k in batch.valid[0].nonzero().flatten().tolist():
            end = int(batch.lengths[0, k])
            mask = batch.target_mask[0, k, :end].int().tolist()
            ids = batch.input_ids[0, k, :end].tolist()
            labels = [token if trained else -100 for token, trained in zip(ids, mask, strict=True)]
            rows.append({"input_ids": ids, "labels": labels})
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=how["batch"],
            gradient_accumulation_steps=len(rows) // how["batch"],
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            max_length=None,
            completion_only_loss=True,
            padding_free=how.get("padding_free", False),
            gradient_checkpointing=False,
            bf16=how.get("autocast", False) and options.precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = SFTTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=student.tokenizer
        )
    trainer.create_optimizer_and_scheduler(1000)
    trainer.current_gradient_accumulation_steps = arguments.gradient_accumulation_steps
    batches = [trainer.data_collator(rows[i : i + how["batch"]]) for i in range(0, len(rows), how["batch"])]
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained, "TRL has nothing to train"

    def step() -> None:
        items = sum((b["labels"] != -100).sum() for b in batches)
        for inputs in batches:
            trainer.training_step(model, dict(inputs), num_items_in_batch=items)
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        trainer.optimizer.step()
        model.zero_grad(set_to_none=True)

    def loss() -> float:
        found = []
        with torch.no_grad():
            for row in rows:  # one text at a time: the token mean of each, as ours
                inputs = trainer.data_collator([row])
                found.append(float(trainer.compute_loss(model, trainer._prepare_inputs(dict(inputs)))))
        return statistics.fmean(found)

    empty: Callable[[], dict[str, float]] = dict
    return step, loss, sum(len(row["input_ids"]) for row in rows), empty


def plain_lora(model: Any) -> Any:
    """The model with PEFT's own LoRA arithmetic, as TRL would have it."""
    for module in model.modules():
        module.__dict__.pop("forward", None)
    return model


if __name__ == "__main__":
    main()
