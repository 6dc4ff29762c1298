"""Toy specialists: runs as training leaves them, made without training, and a study small enough to run whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mind_distill.corpus.read import Corpus
from tests.conftest import HashEncoder, toy_model

KEYS = ("symbolic", "planning", "socratic")
MakeRun = Callable[..., str]


@pytest.fixture
def make_run(toy_folder: Path) -> MakeRun:
    """Writes a run of method single with a random adapter (`seed` decides it) and returns its folder."""
    import torch

    from mind_distill.runs import publish
    from mind_distill.student.adapters import save_adapter
    from mind_distill.student.load import LoraSettings, add_lora
    from mind_distill.training.settings import resolve_recipe

    def make(name: str, perspective: str = "planning", seed: int = 0, base: Path | None = None, **training: Any) -> str:
        folder = Path(name)
        folder.mkdir(parents=True)
        student = str(base or toy_folder)
        values = {
            "student": student,
            "answer_format": "sentence",
            "method": {"name": "single", "perspective": perspective},
            "training": {"seed": seed, "precision": "fp32", "lora": {"rank": 2, "alpha": 4}} | training,
        }
        settings = resolve_recipe(values, name).model_dump(mode="json") | {"student_hash": "toy"}
        info = {"format": 1, "job": "train", "status": "finished", "task": "solve", "seconds": 1.0, "resumed": 0}
        publish(folder / "settings.yaml", json.dumps(settings))
        publish(folder / "run.json", json.dumps(info))
        hidden = json.loads((Path(student) / "config.json").read_text())["hidden_size"]
        model = add_lora(toy_model(hidden=hidden), LoraSettings(rank=2, alpha=4), seed=seed, base=student)
        own = torch.Generator().manual_seed(seed * 1000 + sum(map(ord, perspective)))
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.data = torch.randn(parameter.shape, generator=own)
        save_adapter(model, "default", folder / "adapter")
        return name

    return make


@pytest.fixture
def problems() -> str:
    """A benchmark of the user's own with 14 problems of two subjects; its name."""
    rows = [
        {"id": f"p{i}", "question": f"{i} + {i % 3}?", "answer": str(i + i % 3), "area": "odd" if i % 2 else "even"}
        for i in range(14)
    ]
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"id": "id", "subject": "area"}
    entry = {"name": "bench", "path": "questions.jsonl", "kind": "number", "max_new_tokens": 12, "columns": columns}
    Path("bench.yaml").write_text(json.dumps(entry))
    return "bench.yaml"


@pytest.fixture
def write_study(make_run: MakeRun, problems: str, toy_corpus: Corpus) -> Callable[..., str]:
    """Writes study.yaml (JSON is YAML) with changes over three specialists, two seeds and two students; returns its name."""
    toy_corpus.save("corpus")
    given = {
        "specialists": {key: make_run(f"runs/{key}", key) for key in KEYS},
        "seeds": {f"planning-{n}": make_run(f"runs/planning-{n}", "planning", n) for n in (1, 2)},
        "compare": {"plain": make_run("runs/plain", "intuitive", 7), "other": make_run("runs/other", "analogy", 8)},
        "perspectives": KEYS,
        "problems": {problems: None},
        "threads": 1,
        "batch": 4,
        "teacher": {"source": "corpus"},
        "encoder": {
            "components": 8,
            "latent": 4,
            "hidden": 16,
            "rounds": 6,
            "warm_up": 3,
            "mixture": {"components": 8},
        },
        "geometry": {"draws": 20},
        "map": {"perplexity": 5.0},
    }

    def write(**changes: Any) -> str:
        values = {key: value for key, value in {**given, **changes}.items() if value is not None}
        Path("study.yaml").write_text(json.dumps(values))
        return "study.yaml"

    return write


@pytest.fixture
def hash_embedding(monkeypatch: pytest.MonkeyPatch, hash_encoder: None) -> None:
    """No sentence encoder is loaded for texts either."""
    monkeypatch.setattr("mind_distill.metanet.features.SentenceEncoder", HashEncoder)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, hash_encoder: None) -> list[str]:
    """Runs are trained for real, but in this process and one after the other; the list names them as they begin."""
    from mind_distill.comparison import launch, specialists
    from mind_distill.config import read_recipe
    from mind_distill.pipeline import train
    from mind_distill.terminal import Quiet

    begun: list[str] = []

    def run_all(jobs: Sequence[launch.Job], devices: Any, ready: Any, ended: Any, say: Any) -> None:
        for job in jobs:
            begun.append(job.name)
            train(read_recipe(job.recipe), job.folder, Quiet(), resume=True, force=job.force)
            ended(job, 0, 1.0)

    monkeypatch.setattr(specialists, "run_all", run_all)
    return begun


def rows_of(folder: Path) -> np.ndarray:
    from mind_distill.latent.states import read_states

    return np.asarray(read_states(folder / "states", "own").rows)
