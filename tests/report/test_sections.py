"""The report's sections: corpus, maps, several runs, answers beside problems, published numbers, runs of other versions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mind_distill.cli import run as mind
from mind_distill.corpus.read import Corpus
from mind_distill.evaluation.scoring import holm
from mind_distill.report.run import runs_in
from mind_distill.runs import Run
from tests.report.pages import Page, assert_harmless, page_of
from tests.report.toy_run import write_evaluation, write_lines, write_map, write_run


@pytest.fixture
def toy_run(tmp_path: Path, toy_corpus: Corpus) -> Run:
    return write_run(tmp_path / "run", toy_corpus)


def test_runs_are_tested_item_by_item_and_corrected_for_all_tests(tmp_path: Path, toy_corpus: Corpus) -> None:
    first = write_run(tmp_path / "first", toy_corpus, labels=("before",))
    write_evaluation(first.path, "after", right=1)
    second = write_run(tmp_path / "second", toy_corpus)
    other = write_run(tmp_path / "other", toy_corpus, labels=("before",))
    write_evaluation(other.path, "after", right=9, n=12)
    text = page_of(first, second, other).text
    assert "toy: second against first 10 8 0 0.0078 The test shows a gain." in text
    assert "toy, other against first: The two evaluations do not hold the same items" in text
    assert "Where the weight ended up" in text
    assert holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]


def test_a_page_of_few_tests_says_how_many_it_was_corrected_for(
    tmp_path: Path, toy_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mind_distill.report.side_by_side.MOST_TESTS", 1)
    text = page_of(*(write_run(tmp_path / name, toy_corpus) for name in ("one", "two", "three"))).text
    assert text.count("against one 10") == 1
    assert "corrected for all 2 (Holm), of which the 1 with the smallest p are shown" in text


def test_comparison_folder_stands_for_its_cells(tmp_path: Path, toy_corpus: Corpus) -> None:
    cells = [write_run(tmp_path / "study" / "cells" / name, toy_corpus).path for name in ("mind-s0", "uniform-s0")]
    assert runs_in(tmp_path / "study") == cells
    assert runs_in(cells[0]) == cells[:1]


def test_corpus_stands_beside_the_papers_tables(tmp_path: Path) -> None:
    corpus = Corpus.load("starter").take(60)
    page = page_of(write_run(tmp_path / "run", corpus, steps=4))
    counts = corpus.stats()
    easy = min(corpus, key=lambda lesson: (lesson.problem.level or 0, not lesson.rejected, lesson.problem.id))
    assert f"Example: {easy.problem.id}" in page.text and "rejected: wrong answer" in page.text
    for name, paper in (("geometry", 25), ("number_theory", 59)):
        assert re.search(rf"{name.replace('_', ' ')} {counts['subject'][name]} \d+ {paper}\b", page.text)
    assert "paper, Table 7" in page.text
    assert re.search(r"Formal Symbolic 60 100% \d+, [\d.]+, \d+", page.text)
    assert "Rejected because: wrong answer" in page.text


def test_the_manifests_own_facts_are_shown(tmp_path: Path, toy_corpus: Corpus) -> None:
    run = write_run(tmp_path / "run", toy_corpus)
    file = tmp_path / "corpus" / "manifest.json"
    told = {"accuracy": 0.875, "by_perspective": {"symbolic": 0.5}}
    more = {"teachers": [{"model": "Qwen3-235B"}], "tokens": 12345, "separability": told}
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    text = page_of(run).text
    assert "87.5% of the rationales are told apart" in text
    assert "Teachers Qwen3-235B" in text
    assert "Tokens 12,345" in text
    assert re.search(r"Formal Symbolic 6 100% \d+, \d+, \d+ 0 50%", text)


def test_too_large_a_corpus_is_left_to_the_explorer(toy_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mind_distill.report.source.MAX_CORPUS", 100)
    assert "is too large for one page; `mind explore" in page_of(toy_run).text


def test_losses_over_all_visits_are_drawn_with_their_numbers(tmp_path: Path, toy_corpus: Corpus) -> None:
    page = page_of(write_run(tmp_path / "run", toy_corpus, steps=18))
    said = [attrs["data-said"] for _, attrs in page.tags if "data-said" in attrs]
    assert said.count("step 13\nloss: 1.00\nweight: 50%") == 1
    assert "Loss and weight of Planning over 3 visits" in page.source


def test_the_same_or_the_most_similar_held_out_question_stands_beside_a_problem(
    tmp_path: Path, toy_corpus: Corpus
) -> None:
    run = write_run(tmp_path / "run", toy_corpus, labels=())
    problems = [lesson.problem for lesson in toy_corpus]
    for label, right in (("before", False), ("final", True)):
        write_evaluation(run.path, label, right=0)
        rows = [
            {**json.loads(line), "id": p.id, "question": p.question, "correct": right}
            for line, p in zip(
                (run.path / "evaluations" / label / "toy.jsonl").read_text().splitlines(), problems, strict=False
            )
        ]
        write_lines(run.path / "evaluations" / label / "toy.jsonl", rows)
    page = page_of(run)
    assert page.text.count("The student was asked this very question") == 6
    assert [attrs["data-outcome"] for _, attrs in page.tags if "data-outcome" in attrs] == ["gained"] * 6


def test_numbers_of_a_later_version_are_drawn_as_recorded(toy_run: Run) -> None:
    rows = [json.loads(line) for line in (toy_run.path / "metrics.jsonl").read_text().splitlines()]
    write_lines(toy_run.path / "metrics.jsonl", [row | {"effective_paths": 2.5, "<b>odd</b>": 1} for row in rows])
    page = page_of(toy_run)
    assert "Effective paths As recorded." in page.text
    assert "b" not in [tag for tag, attrs in page.tags if attrs.get("class") == "odd"]
    assert_harmless(page)


def test_a_run_of_another_version_is_shown_and_says_so(toy_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    info = toy_run.info()
    for changes in ({"format": 99}, {}):
        info = {key: value for key, value in info.items() if key != "format"} | changes
        (toy_run.path / "run.json").write_text(json.dumps(info))
        assert mind(["report", str(toy_run.path), "--output", "old.html"]) == 0
        assert "more may be missing" in Page(Path("old.html")).text
    (toy_run.path / "run.json").write_text("{broken")
    assert mind(["report", str(toy_run.path), "--output", "old.html"]) == 0
    assert "run.json cannot be read" in Page(Path("old.html")).text
    assert mind(["report", "nowhere"]) == 2


def test_maps_are_drawn_to_one_scale_and_damaged_ones_named(toy_run: Run) -> None:
    write_map(toy_run.path / "map.json")
    (toy_run.path / "map-broken.json").write_text('{"points": [{"x": NaN, "y": 1}, 3]}')
    page = page_of(toy_run)
    circles = [attrs for tag, attrs in page.tags if tag == "circle"]
    assert len(circles) == 4
    assert float(circles[2]["cx"]) - float(circles[0]["cx"]) == pytest.approx(4 * 154, abs=0.2)
    assert float(circles[0]["cy"]) - float(circles[3]["cy"]) == pytest.approx(2 * 154, abs=0.2)
    assert "map-broken.json holds no point that can be read." in page.text
    assert re.search(r"Planning · specialist · toy-001\s+Asked: toy-001\?\s+Text of toy-001", page.text)
    assert "select one to open its problem" in page.text


def test_a_map_of_many_points_is_thinned_and_says_so(toy_run: Run) -> None:
    points = [
        {"x": i % 97, "y": i // 97, "label": str(i % 3), "id": f"p{i}", "text": "long " * 500} for i in range(9_000)
    ]
    write_map(toy_run.path / "map.json", points=points)
    page = page_of(toy_run)
    assert "3000 of 9000 points, evenly drawn." in page.text
    assert len(page.source) < 3_000_000


def test_what_latent_leaves_is_a_report_of_its_own(tmp_path: Path) -> None:
    write_map(tmp_path / "latent" / "map.json")
    (tmp_path / "latent" / "run.json").write_text('{"format": 1, "job": "latent", "status": "finished"}')
    settings = "encoder: {kind: coupled}\nsentence_encoder: some/encoder\n"
    for name in ("recipe.yaml", "settings.yaml"):
        (tmp_path / "latent" / name).write_text(settings)
    text = page_of(Run(tmp_path / "latent")).text
    assert "Latent: latent" in text
    assert "open its problem" not in text, "there is no reading room here"
    assert "mind latent " in text and "mind train" not in text
    assert re.search(r"Sentence encoder\s+some/encoder", text) and "{'kind'" not in text
    assert "No training step is recorded" not in text


def test_published_accuracies_stand_beside_where_table_1_has_them(toy_run: Run) -> None:
    table = pytest.importorskip("mind_distill.report.published")
    settings = toy_run.settings() | {"student": "Qwen/Qwen2.5-1.5B-Instruct"}
    (toy_run.path / "settings.yaml").write_text(json.dumps(settings))
    assert "published (paper" not in page_of(toy_run).text
    for label in ("before", "after"):
        file = toy_run.path / "evaluations" / label / "scores.json"
        file.write_text(file.read_text().replace('"toy"', '"math500"'))
    assert "published (paper, Table 1; no n, no interval) 50.4% 54.1%" in page_of(toy_run).text
    assert table.TABLE_1["Qwen2.5-1.5B", "mind"].accuracy["math500"] == 54.09
