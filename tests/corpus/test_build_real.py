"""A real model behind the OpenAI protocol as teacher and judge: the embedded student by `mind serve`; the grader decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mind_distill.cli import run
from mind_distill.corpus.read import Corpus
from mind_distill.tasks.answers import is_equivalent
from tests.corpus.scripted_problems import judge, recipe, write_rows
from tests.corpus.servers import serving

QUESTIONS = [
    ("What is 2 + 3?", "5"),
    ("What is 5 + 5?", "10"),
    ("Tom has 10 coins and gives 2 away. How many coins are left?", "8"),  # as a rule too hard for it
]
GREEDY = {"temperature": 0, "max_tokens": 96}


@pytest.mark.slow
def test_a_real_teacher_and_judge_build_a_corpus_that_the_grader_confirms() -> None:
    write_rows([{"problem": question, "answer": answer} for question, answer in QUESTIONS])
    with serving("serve", "embedded", "--batch", "8") as address:
        model = {"model": "embedded", "sampling": GREEDY}
        values = recipe(address=address, perspectives=["decomposition", "planning"], repair=0)
        values["problems"]["kind"] = "number"
        values["teachers"] = [values["teachers"][0] | model]
        values["judge"] = judge(address, unjudged="keep", max_unjudged=1, retries=1, structured=False, **model)
        Path("recipe.yaml").write_text(json.dumps(values), encoding="utf-8")
        for folder in ("first", "again"):
            assert run(["corpus", "build", "recipe.yaml", "--output", folder]) == 0
    assert Path("first/corpus.jsonl").read_bytes() == Path("again/corpus.jsonl").read_bytes()
    figures = json.loads(Path("first/manifest.json").read_text())["yield"]
    assert figures["problems"] == 3 and sum(figures["asked"].values()) == 6
    verdicts = figures["judge"]
    assert sum(figures["right"].values()) == sum(verdicts.get(name, 0) for name in ("pass", "fail", "unjudged")) > 0
    for lesson in Corpus.load("first"):
        for rationale in lesson.rationales:
            assert is_equivalent(lesson.problem.answer, rationale.text, lesson.problem.kind), rationale.text
