"""`mind evaluate` as a person types it: every form of MODEL, what it writes, and mistakes told in a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mind_distill.cli import run
from mind_distill.errors import UserError
from mind_distill.evaluation.ask import Ask
from mind_distill.records import Problem, to_json
from mind_distill.runs import RunDirectory


@pytest.fixture
def bench() -> str:
    rows = (Problem(f"p{i}", f"{i} + 1?", str(i + 1), "number", level=1 + i % 2) for i in range(4))
    Path("bench.jsonl").write_text("".join(to_json(row) + "\n" for row in rows))
    return "bench.jsonl"


@pytest.fixture
def adapter(toy_folder: Path) -> Path:
    """A PEFT adapter over the toy, as a folder of its own."""
    from mind_distill.student.load import LoraSettings, add_lora
    from tests.conftest import toy_model

    model = add_lora(toy_model(), LoraSettings(rank=2), seed=0, base=str(toy_folder))
    model.save_pretrained("adapter")
    return Path("adapter")


@pytest.fixture
def run_folder(toy_folder: Path, adapter: Path) -> Path:
    """The least that is a finished run: its adapter, settings and run.json."""
    with RunDirectory(Path("run"), "train", 0, resume=False) as directory:
        settings = {"student": str(toy_folder), "answer_format": "sentence", "training": {"precision": "fp32"}}
        directory.write_settings("", json.dumps(settings))
        adapter.rename("run/adapter")
    return Path("run")


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["evaluate", *arguments, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["evaluate", *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def asked(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "settings.json").read_text())["bench"]
    return found


def test_a_folder_an_adapter_and_a_run_are_all_models(
    capsys: pytest.CaptureFixture[str], toy_folder: Path, run_folder: Path, bench: str
) -> None:
    evaluate(capsys, str(toy_folder), "--benchmarks", bench, "-o", "of-folder")
    assert asked("of-folder")["answer_format"] == "boxed", "the default of a model that is not ours"
    found = evaluate(capsys, str(run_folder), "--benchmarks", bench)
    assert found["output"] == "run/evaluations/final" and asked("run/evaluations/final")["answer_format"] == "sentence"
    (run_folder / "adapter").rename("adapter")
    evaluate(capsys, "adapter", "--benchmarks", bench, "-o", "of-adapter", "--answer-format", "sentence")
    assert asked("of-adapter")["answer_format"] == "sentence"
    adapter, of_run = asked("of-adapter")["identity"].split(), asked("run/evaluations/final")["identity"].split()
    assert adapter[0] == of_run[0] and adapter[2] == of_run[2], "the same weights and form; only a run says its dtype"


def test_the_folder_holds_scores_times_and_every_answer(
    capsys: pytest.CaptureFixture[str], toy_folder: Path, bench: str
) -> None:
    arguments = [str(toy_folder), "--benchmarks", bench, "-o", "out", "--batch", "2"]
    assert run(["evaluate", *arguments]) == 0
    said = capsys.readouterr().out
    assert re.search(r"bench: \d+\.0% of 4 \(95 % interval .* standard error", said) and "items/s" in said
    assert re.search(r"by level: 1 \d/2, 2 \d/2", said)
    time = json.loads(Path("out/timing.json").read_text())["bench"]
    assert time["answered"] == 4 and time["seconds"] > 0 and time["tokens"] > 0
    assert len(Path("out/bench.jsonl").read_text().splitlines()) == 4


def test_finished_answers_are_kept_refused_or_asked_again(
    capsys: pytest.CaptureFixture[str], toy_folder: Path, bench: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mind_distill.generation.local import LocalGenerator

    calls: list[int] = []
    original = LocalGenerator.generate
    monkeypatch.setattr(
        LocalGenerator,
        "generate",
        lambda self, prompts, *rest: calls.append(len(prompts)) or original(self, prompts, *rest),
    )
    arguments = [str(toy_folder), "--benchmarks", bench, "-o", "out", "--limit", "2"]
    first = evaluate(capsys, *arguments)
    assert "holds the answers to bench already. Keep them with --resume" in complaint(capsys, *arguments)
    assert evaluate(capsys, *arguments, "--resume") == first and calls == [2]
    other = complaint(capsys, *arguments, "--resume", "--answer-format", "sentence")
    assert "answer_format ('boxed' then, 'sentence' now)" in other and "--force" in other
    assert "bench" in asked_names("out"), "a refusal leaves what was there"
    evaluate(capsys, *arguments, "--force", "--answer-format", "sentence")
    assert calls == [2, 2] and asked("out")["answer_format"] == "sentence"


def asked_names(folder: str) -> list[str]:
    return list(json.loads(Path(folder, "settings.json").read_text()))


def test_prompts_are_shown_from_the_tokenizer_alone(
    capsys: pytest.CaptureFixture[str], toy_folder: Path, bench: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mind_distill.student.load.load_model", lambda *_: pytest.fail("a model was loaded"))
    found = evaluate(capsys, str(toy_folder), "--benchmarks", bench, "--show-prompt")
    (row,) = found["prompts"]
    assert row["prompt"].startswith("<s>user\n0 + 1?\n\n") and "\\boxed{}" in row["prompt"]
    assert row["tokens"] == len(row["ids"]) and row["items"] == 4 and row["template"] == "chat"
    assert (
        run(["evaluate", str(toy_folder), "--benchmarks", bench, "--show-prompt", "--answer-format", "sentence"]) == 0
    )
    assert 'end with "The answer is" and the number' in capsys.readouterr().out


def test_a_model_without_a_chat_template_is_told_with_its_fallback(
    capsys: pytest.CaptureFixture[str], toy_folder: Path, bench: str
) -> None:
    import shutil

    shutil.copytree(toy_folder, "plain")
    Path("plain/chat_template.jinja").unlink(missing_ok=True)
    config = json.loads(Path("plain/tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    Path("plain/tokenizer_config.json").write_text(json.dumps(config))
    assert run(["evaluate", "plain", "--benchmarks", bench, "-o", "out"]) == 0
    assert "this model has no chat template. Each prompt is 'Question: ...'" in capsys.readouterr().out
    assert asked("out")["template"] == "fallback"


def test_a_benchmarks_own_cue_is_asked(capsys: pytest.CaptureFixture[str], toy_folder: Path) -> None:
    Path("rows.jsonl").write_text('{"question": "2 + 2?", "answer": 4}\n')
    Path("own.yaml").write_text("name: own\npath: rows.jsonl\nkind: number\nmax_new_tokens: 5\ncue: Say it.\n")
    found = evaluate(capsys, str(toy_folder), "--benchmarks", "own.yaml", "-o", "out")
    assert found["scores"][0]["benchmark"] == "own" and found["scores"][0]["tokens"] <= 5
    shown = evaluate(capsys, str(toy_folder), "--benchmarks", "own.yaml", "--show-prompt")
    assert "2 + 2?\n\nSay it." in shown["prompts"][0]["prompt"]


def test_mistakes_are_told_in_a_sentence(capsys: pytest.CaptureFixture[str], toy_folder: Path, bench: str) -> None:
    model = str(toy_folder)
    assert "Name the MODEL" in complaint(capsys)
    assert "Name --benchmarks" in complaint(capsys, model)
    assert "Did you mean 'svamp'" in complaint(capsys, model, "--benchmarks", "svamps")
    assert "--sample must be at least 1" in complaint(capsys, model, "--benchmarks", bench, "--sample", "0")
    assert "--temperature must be above 0" in complaint(
        capsys, model, "--benchmarks", bench, "--sample", "2", "--temperature", "0"
    )
    assert "--top-p must be" in complaint(capsys, model, "--benchmarks", bench, "--top-p", "1.5")
    assert "is not there" in complaint(capsys, model, "--benchmarks", "svamp", "--data", "nowhere")
    assert "There is no model folder 'nowhere'" in complaint(capsys, "nowhere", "--benchmarks", bench)
    assert "--endpoint or --backend, not both" in complaint(
        capsys, model, "--benchmarks", bench, "--endpoint", "http://127.0.0.1:9/v1", "--backend", "vllm"
    )
    assert "does not answer" in complaint(capsys, "m", "--benchmarks", bench, "--endpoint", "http://127.0.0.1:9/v1")


def test_vllm_that_is_not_installed_is_named_with_its_extra(
    capsys: pytest.CaptureFixture[str], toy_folder: Path, bench: str
) -> None:
    if __import__("importlib.util").util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    said = complaint(capsys, str(toy_folder), "--benchmarks", bench, "--backend", "vllm", "-o", "out")
    assert "pip install 'mind-distill[vllm]'" in said


def tell(run_folder: Path, **values: str) -> None:
    """Write into run.json what a method's run tells of its student."""
    info = json.loads((run_folder / "run.json").read_text())
    (run_folder / "run.json").write_text(json.dumps(info | values))


def test_a_student_of_two_tasks_is_given_its_own_prompt_by_every_backend(
    capsys: pytest.CaptureFixture[str], run_folder: Path, bench: str
) -> None:
    from mind_distill.evaluation.backends import Vllm, _known, _turn
    from mind_distill.pipeline import _frozen_student
    from mind_distill.tasks.base import load_benchmark

    tell(run_folder, task="predict")
    (problem, *_) = load_benchmark(bench)
    student, _ = _frozen_student(str(run_folder), None, 1)
    usual = student.layout.encode_prompt(problem)
    assert "Give the answer alone" in student.tokenizer.decode(usual)
    (shown,) = evaluate(capsys, str(run_folder), "--benchmarks", bench, "--show-prompt")["prompts"]
    assert shown["ids"] == usual
    assert Vllm().candidate(str(run_folder), None, Ask()).encode(problem, None) == usual
    assert "Give the answer alone" in _turn("sentence", _known(str(run_folder)).task, problem)


def test_vllm_knows_an_adapter_by_its_weights_and_takes_one_alone(run_folder: Path) -> None:
    import shutil

    from mind_distill.evaluation.backends import Vllm
    from mind_distill.student.load import LoraSettings, add_lora
    from tests.conftest import toy_model

    before = Vllm().candidate(str(run_folder), None, Ask()).identity
    assert Vllm().candidate(str(run_folder), None, Ask()).identity == before
    add_lora(toy_model(), LoraSettings(rank=4), seed=1, base="toy").save_pretrained(run_folder / "adapter")
    assert Vllm().candidate(str(run_folder), None, Ask()).identity != before
    shutil.copytree(run_folder / "adapter", run_folder / "adapters" / "svamp")
    with pytest.raises(UserError, match="adapters of its own for svamp"):
        Vllm().candidate(str(run_folder), None, Ask())
