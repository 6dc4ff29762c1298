"""MoDE: experts move alone, the mixture picks the right one, and evaluation answers with the mixture of its benchmark."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.methods.mixing import combine, search_weights
from mind_distill.pipeline import train
from mind_distill.records import Lesson, to_json
from mind_distill.runs import Run
from mind_distill.student.adapters import load_adapter, read_adapter, write_adapter
from mind_distill.student.load import find_student, load_model
from mind_distill.terminal import Quiet
from tests.conftest import make_lesson
from tests.methods.conftest import backward, batches_of, build, full_lesson, grow, make, silent
from tests.training.test_training import recipe


def step(student: Any, method: Any, corpus: Any, times: int = 1, rate: float = 2e-2) -> None:
    optimizer = torch.optim.AdamW(student.trainable().values(), lr=rate)
    for _ in range(times):
        backward(student, method, corpus)
        optimizer.step()
        optimizer.zero_grad()


def weights_of(student: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in student.model.named_parameters()}


@pytest.mark.parametrize(("experts", "count"), [("subject", 2), ("perspective", 8)])
def test_each_problem_moves_its_own_experts_and_nothing_else(
    experts: str, count: int, toy_student: Any, full_corpus: Corpus, tmp_path: Path
) -> None:
    method = build("mode", full_corpus, tmp_path, experts=experts)
    grow(toy_student, method, full_corpus)
    assert len(toy_student.experts) == count
    before = weights_of(toy_student)
    only = (
        [full_lesson(1)]
        if experts == "subject"
        else [replace(full_lesson(1), rationales=make_lesson(1).rationales[:1])]
    )
    step(toy_student, method, only)
    moved = {name for name, p in weights_of(toy_student).items() if not torch.equal(p, before[name])}
    expert = "expert_algebra" if experts == "subject" else "expert_symbolic"
    assert moved and all(f".{expert}." in name for name in moved)


def answers(n: int, subject: str, answer: str) -> Lesson:
    """A lesson whose text depends on its subject alone: two skills that one student cannot have at once."""
    lesson = full_lesson(n, subject=subject)
    text = f"{answer * 12}\n\nThe answer is {n + 2}."
    neutral = replace(lesson.neutral[0], text=text, body_end=12 * len(answer))
    return replace(lesson, neutral=(neutral,))


@pytest.fixture
def two_skills() -> Corpus:
    return Corpus([answers(n, *(("algebra", "zq") if n % 2 else ("geometry", "XW"))) for n in range(1, 7)])


@pytest.mark.parametrize(
    ("how", "search"),
    [("lorahub", "ngopt"), ("lorahub", "one_plus_one"), ("peft_linear", "ngopt"), ("exact_cat", "one_plus_one")],
)
def test_the_mixture_picks_the_expert_of_the_task(
    how: str, search: str, two_skills: Corpus, toy_student: Any, tmp_path: Path
) -> None:
    if search == "ngopt":
        pytest.importorskip("nevergrad")
    method = build("mode", two_skills, tmp_path, combine=how, search=search)
    grow(toy_student, method, two_skills)
    step(toy_student, method, two_skills, times=10)
    toy_student.model.eval()
    experts = method._experts(toy_student, tmp_path)
    for subject, skill in (("algebra", "zq"), ("geometry", "XW")):
        examples = [answers(n, subject, skill) for n in (11, 12, 13)]
        found = method._mix(toy_student, experts, examples, silent, subject)
        strength = {name: abs(weight) for name, weight in found["weights"].items()}
        assert max(strength, key=strength.__getitem__) == f"expert_{subject}"
        assert found["score"] < found["loss_before"] - 0.3 and found["search"] == search


def test_a_search_stays_in_its_budget_and_bounds_and_repeats_itself() -> None:
    def scored(tried: list[Sequence[float]]) -> Callable[[Sequence[float]], float]:
        def score(weights: Sequence[float]) -> float:
            tried.append(list(weights))
            return (weights[0] - 1) ** 2 + (weights[1] + 2) ** 2

        return score

    for search in ("auto", "one_plus_one"):
        tries: list[list[Sequence[float]]] = [[], []]
        found = [search_weights(scored(tried), 2, 40, 42, search) for tried in tries]  # type: ignore[arg-type]
        assert len(tries[0]) == 40 and tries[0] == tries[1] and found[0] == found[1]
        assert tries[0][0] == [0.0, 0.0] and all(-3 <= w <= 3 for weights in tries[0] for w in weights)
        assert found[0].score < 1.5


def test_peft_linear_is_what_peft_calls_linear(toy_student: Any) -> None:
    toy_student.grow(["expert_a", "expert_b"], 0)
    for i, parameter in enumerate(toy_student.trainable().values()):
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(i))
    experts = [read_adapter(toy_student.model, name) for name in ("expert_a", "expert_b")]
    mixed = combine(experts, [0.7, -1.5], "peft_linear")
    model = toy_student.model
    model.add_weighted_adapter(["expert_a", "expert_b"], [0.7, -1.5], "mixed", combination_type="linear")
    theirs = read_adapter(model, "mixed")
    for key in mixed.tensors:
        if "lora_A" not in key:
            continue
        other = key.replace("lora_A", "lora_B")
        ours = mixed.scaling * mixed.tensors[other] @ mixed.tensors[key]
        torch.testing.assert_close(ours, theirs.scaling * theirs.tensors[other] @ theirs.tensors[key])


def test_an_adapter_is_exchanged_for_one_of_another_rank(toy_student: Any, toy_corpus: Corpus) -> None:
    student = toy_student
    expert = read_adapter(student.model, "default")
    tensors = {key: 0.1 * torch.randn(value.shape) for key, value in expert.tensors.items()}
    wide = combine([expert._replace(tensors=tensors)] * 3, [0.5, 0.25, 0.25], "exact_cat")
    batch = student.lay_out(
        list(toy_corpus), [make("uniform", toy_corpus).paths(m, random.Random(0)) for m in toy_corpus]
    )
    write_adapter(student.model, "default", expert._replace(tensors=tensors))
    with torch.no_grad():
        before = student.read(batch).nll
        write_adapter(student.model, "default", wide)
        torch.testing.assert_close(student.read(batch).nll, before, atol=1e-5, rtol=0)
    assert list(student.model.peft_config) == ["default"] and not student.trainable()


# --- whole runs


def mode_recipe(folder: Path, benchmark: Path, **method: Any) -> dict[str, Any]:
    values = recipe(folder, "mode", epochs=1)
    values["method"] = {"name": "mode", "budget": 6, **method}
    values["evaluation"] = {"benchmarks": ["starter-easy", str(benchmark)], "limit": 2}
    return values


@pytest.fixture
def benchmark(tmp_path: Path) -> Path:
    file = tmp_path / "own.jsonl"
    file.write_text("".join(to_json(make_lesson(n).problem) + "\n" for n in (21, 22)), encoding="utf-8")
    return file


def test_a_run_keeps_experts_and_mixtures_and_evaluation_takes_the_benchmarks_own(
    toy_folder: Path, full_corpus: Corpus, benchmark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mind_distill.student.load import Student

    used: list[str] = []
    original = Student.answer_as

    def noted(self: Any, name: str) -> None:
        original(self, name)
        used.append(self.model.active_adapter)

    monkeypatch.setattr(Student, "answer_as", noted)
    train(mode_recipe(toy_folder, benchmark), Path("run"), Quiet(), corpus=full_corpus)
    assert used == ["starter-easy", "default"], "a file of one's own has no examples: the corpus's mixture answers it"
    assert sorted(p.name for p in Path("run/adapters").iterdir()) == [
        "expert_algebra",
        "expert_geometry",
        "starter-easy",
    ]
    found = json.loads(Path("run/mixture.json").read_text())
    assert found.keys() == {"starter-easy", str(benchmark), "corpus"}
    assert "no learning examples" in found[str(benchmark)]["without_examples"]
    assert len(found["starter-easy"]["examples"]) == 5 and found["starter-easy"]["weights"].keys() == {
        "expert_algebra",
        "expert_geometry",
    }
    experts = [load_adapter(Path(f"run/adapters/expert_{name}")) for name in ("algebra", "geometry")]
    wanted = combine(experts, list(found["corpus"]["weights"].values()), "lorahub")
    for key, tensor in load_adapter(Path("run/adapter")).tensors.items():
        torch.testing.assert_close(tensor, wanted.tensors[key], atol=1e-5, rtol=1e-4)
    model = load_model(find_student("run"), "fp32", merge=False)
    assert set(model.peft_config) == {"default", "starter-easy"}
    assert Run.load("run").metrics()[0]["sft"] > 0
    assert Run.load("run").info()["columns"] == ["rationale"]


def test_finished_runs_serve_as_experts_without_a_step_of_training(
    toy_folder: Path, full_corpus: Corpus, benchmark: Path
) -> None:
    for name in ("planning", "socratic"):
        values = recipe(toy_folder, f"single:{name}", epochs=1)
        train(values, Path(name), Quiet(), corpus=full_corpus)
    reused = mode_recipe(toy_folder, benchmark, runs=["planning", "socratic"], combine="exact_cat")
    train(reused, Path("run"), Quiet(), corpus=full_corpus)
    assert not Path("run/metrics.jsonl").exists() and not Path("run/checkpoints").exists()
    experts = [load_adapter(Path(name) / "adapter") for name in ("planning", "socratic")]
    weights = json.loads(Path("run/mixture.json").read_text())["corpus"]["weights"]
    assert list(weights) == ["planning", "socratic"]
    mixed = load_adapter(Path("run/adapter"))
    for key in mixed.tensors:
        if "lora_A" in key:
            other = key.replace("lora_A", "lora_B")
            updates = [e.scaling * e.tensors[other] @ e.tensors[key] for e in experts]
            wanted = sum(w * u for w, u in zip(weights.values(), updates, strict=True))
            torch.testing.assert_close(
                mixed.scaling * mixed.tensors[other] @ mixed.tensors[key], wanted, atol=1e-6, rtol=1e-3
            )


def test_a_search_that_is_not_installed_is_refused_before_anything_is_trained(
    full_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mind_distill.methods.mode.has_nevergrad", lambda: False)
    with pytest.raises(UserError, match="pip install nevergrad"):
        make("mode", full_corpus, search="ngopt").check(full_corpus)
    make("mode", full_corpus).check(full_corpus)


def test_mode_refuses_what_cannot_be_mixed(toy_folder: Path, full_corpus: Corpus, benchmark: Path) -> None:
    alike = Corpus([full_lesson(n, subject="algebra") for n in (1, 2)])
    with pytest.raises(UserError, match=r"one expert only \(expert_algebra\).*method.experts=perspective"):
        make("mode", alike).check(alike)
    with pytest.raises(UserError, match="not a run directory"):
        make("mode", full_corpus, runs=("nowhere",)).check(full_corpus)
    train(recipe(toy_folder, "single:planning", max_steps=1), Path("a"), Quiet(), corpus=full_corpus)
    train(recipe(toy_folder, "single:analogy", max_steps=1, lora={"rank": 2}), Path("b"), Quiet(), corpus=full_corpus)
    around = {"student": str(toy_folder)}
    with pytest.raises(UserError, match="two different runs"):
        make("mode", full_corpus, around=around, runs=("a",)).check(full_corpus)
    with pytest.raises(UserError, match="another shape or scaling than that of a"):
        make("mode", full_corpus, around=around, runs=("a", "b")).check(full_corpus)
    with pytest.raises(UserError, match="was trained on '.*', the recipe's student is 'other'"):
        make("mode", full_corpus, around={"student": "other"}, runs=("a", "b")).check(full_corpus)


def test_batches_hold_one_adapter_each(toy_student: Any, full_corpus: Corpus, tmp_path: Path) -> None:
    method = build("mode", full_corpus, tmp_path, data="perspectives")
    batches = batches_of(toy_student, method, full_corpus)
    assert [batch.adapter for batch in batches] == ["expert_algebra", "expert_geometry"]
    assert len(method.columns()) == 8
