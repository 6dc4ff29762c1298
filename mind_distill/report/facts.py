"""What was run, in plain words: the parts, the settings that matter, the machine, the cost, the line that repeats it."""

from __future__ import annotations

import shlex
from typing import Any, NamedTuple

import yaml

from mind_distill.report.source import TRAINS, Source
from mind_distill.report.words import clip, duration, encoder_name, figure, number


class Cost(NamedTuple):
    """Trained tokens, the seconds of the steps alone, and the most memory seen, in MiB."""

    tokens: float
    seconds: float
    memory: float | None


def cost(source: Source) -> Cost | None:
    """What the steps cost; a step taken again after a resume is counted each time, for it was paid each time."""
    rows = [(number(row.get("tokens")), number(row.get("seconds")), number(row.get("rss"))) for row in source.timing]
    known = [(t, s) for t, s, _ in rows if t is not None and s]
    if not known:
        return None
    memory = [m for _, _, m in rows if m is not None]
    return Cost(sum(t for t, _ in known), sum(s for _, s in known), max(memory, default=None))


def summary(source: Source) -> str:
    """One sentence on what was done."""
    problems, steps = len(source.visited()), len(source.metrics)
    if source.job not in TRAINS:
        return f"What 'mind {source.job}' left in {source.run.path}."
    if not steps:
        return f"{source.student} was to be trained with {source.method}; no step was taken."
    ways = f", each explained in up to {source.slots} ways"
    learned = _many(problems, "problem") + ways if problems else "a corpus"
    took = number(source.info.get("seconds"))
    end = f", {duration(took)} in all." if took is not None else "."
    return f"The student learned from {learned}, with {source.method}: {_many(steps, 'step')}{end}"


def _many(count: object, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def state(source: Source) -> str | None:
    """What the reader must know of a run that did not finish."""
    last = f" after step {source.metrics[-1].get('step', '?')}" if source.metrics else " before its first step"
    resume = " The command that started it, with --resume added, continues it."
    return {
        "finished": None,
        "running": f"This run was still under way, or was killed,{last} when the page was written.",
        "stopped": f"This run was stopped{last}; the page shows what it left.{resume}",
        "failed": f"This run failed{last}; the page shows what it left.",
    }.get(source.status, f"How this run ended is not known (status '{clip(source.status, 60)}').")


def facts(source: Source) -> list[tuple[str, str]]:
    """Name and value, in reading order; what a run does not record is left out."""
    found = [*_parts(source), *_training(source), *_machine(source)]
    return [(name, clip(value, 600)) for name, value in found if value]


def _parts(source: Source) -> list[tuple[str, str]]:
    tag, limit = source.setting("corpus.slice"), source.setting("corpus.limit")
    probe, benchmarks = source.setting("corpus.probe", 0), source.setting("evaluation.benchmarks", [])
    corpus = str(source.setting("corpus.source", ""))
    known = source.job in TRAINS  # a study of the latent space has no student and method of its own
    corpus += f", slice '{tag}'" * bool(tag) + f", at most {limit} problems" * bool(limit)
    corpus += f"; {probe} more set aside for the probe" * bool(probe)
    return [
        ("Student", source.student if known or source.setting("student") else ""),
        ("Method", source.method if known or source.setting("method.name") else ""),
        ("Sentence encoder", encoder_name(source.setting("encoder" if known else "sentence_encoder", ""))),
        ("Corpus", corpus),
        ("Answer format", str(source.setting("answer_format", ""))),
        ("Questions", ", ".join(str(name) for name in benchmarks) if isinstance(benchmarks, list) else str(benchmarks)),
        ("Seed", str(source.info.get("seed", source.setting("training.seed", "")))),
    ]


def _training(source: Source) -> list[tuple[str, str]]:
    at = source.setting
    rank, alpha, rate = at("training.lora.rank"), at("training.lora.alpha"), number(at("training.learning_rate"))
    paid = cost(source)
    size, count = at("training.problems_per_step", "?"), len(source.metrics)
    steps = f"{_many(count, 'step')} of {_many(size, 'problem')}" if count else ""
    epochs = at("training.epochs")
    return [
        ("Steps", steps + (f", {_many(epochs, 'epoch')} asked for" if steps and epochs else "")),
        ("Learning rate", figure(rate) if rate is not None else ""),
        ("LoRA", f"rank {rank}, alpha {figure(number(alpha))}" if rank else ""),
        (
            "Tokens trained",
            f"{paid.tokens:,.0f}, {paid.tokens / paid.seconds:,.0f} a second of training" if paid else "",
        ),
    ]


def _machine(source: Source) -> list[tuple[str, str]]:
    info, paid, hardware = source.info, cost(source), source.part("hardware")
    took, resumed = number(info.get("seconds")), info.get("resumed")
    machine = ", ".join(str(v) for v in (hardware.get("processor"), hardware.get("system")) if v)
    cores, threads = hardware.get("cores"), info.get("threads")
    return [
        ("Duration", (duration(took) if took is not None else "") + (f", resumed {resumed} times" if resumed else "")),
        ("Started", str(info.get("start", "")).replace("T", " ").replace("+00:00", " UTC")),
        ("Machine", machine + f", {cores} cores" * bool(cores) + f", {threads} threads used" * bool(threads)),
        ("Precision", str(info.get("precision", ""))),
        ("Peak memory", f"{paid.memory / 1024:.1f} GiB" if paid and paid.memory else ""),
        ("Versions", ", ".join(f"{name} {version}" for name, version in source.part("versions").items())),
        ("Corpus SHA-256", str(source.part("hashes").get("corpus", ""))),
    ]


def command(source: Source) -> str:
    """One line that repeats the run from its recipe, in a new folder."""
    recipe, verb = source.run.path / "recipe.yaml", "latent" if source.job == "latent" else "train"
    return shlex.join(["mind", verb, str(recipe), "--output", f"runs/{source.name}-again"]) if recipe.is_file() else ""


def given_command(source: Source) -> str:
    """The command as it was given, or nothing if the run was started from Python."""
    given = str(source.info.get("command", ""))
    return clip(given, 2000) if given.startswith("mind ") else ""


def settings_text(source: Source) -> str:
    """The resolved settings as YAML."""
    return yaml.safe_dump(_short(source.settings), sort_keys=False, allow_unicode=True) if source.settings else ""


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {clip(str(key), 100): _short(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value[:200]]
    return clip(value, 1000) if isinstance(value, str) else value
