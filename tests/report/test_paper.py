"""The paper's figures from run files: each can be drawn and saved, and says what is missing; the notebook runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mind_distill.cli import run as mind
from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.report import paper
from mind_distill.report.source import Source
from mind_distill.report.subjects import preference_test
from tests.report.toy_run import write_lines, write_map, write_run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runs(tmp_path: Path, toy_corpus: Corpus) -> list[Source]:
    return [Source(write_run(tmp_path / name, toy_corpus, 24, name)) for name in ("mind", "uniform")]


def test_every_figure_is_drawn_and_saved_as_svg_and_pdf(runs: list[Source], tmp_path: Path) -> None:
    for name in ("map.json", "map-text.json", "map-student-a.json", "map-student-b.json"):
        write_map(runs[0].run.path / name)
    written = paper.write_all(runs, tmp_path / "figures")
    names = {file.name for file in written.files}
    assert {f"figure-{n}.{kind}" for n in (4, 5, 6, 7, "8-mind", "8-uniform") for kind in ("svg", "pdf")} <= names
    assert written.missing == []
    for file in written.files:
        start = file.read_bytes()[:5]
        assert start == b"%PDF-" if file.suffix == ".pdf" else b"<svg" in start


def test_figure_5_keeps_the_order_of_the_study(runs: list[Source], tmp_path: Path) -> None:
    folder = runs[0].run.path
    for name in ("a", "b"):
        write_map(folder / f"map-student-{name}.json", title=f"student {name}")
    models = [{"name": name, "role": role} for name, role in (("s", "specialist"), ("b", "compare"), ("a", "compare"))]
    (folder / "models.json").write_text(json.dumps({"models": models}))
    paper.write_all(runs, tmp_path / "figures")
    drawn = (tmp_path / "figures" / "figure-5.svg").read_text()
    assert drawn.index("student b") < drawn.index("student a")


def test_what_the_runs_do_not_hold_is_said_not_drawn(runs: list[Source], tmp_path: Path) -> None:
    written = paper.write_all(runs[:1], tmp_path / "figures")
    assert [file.name for file in written.files] == ["figure-8-mind.svg", "figure-8-mind.pdf"]
    assert [sentence.split(":")[0] for sentence in written.missing] == [
        "figure-4", "figure-5", "figure-6", "figure-7", "figure-7-probe"
    ]  # fmt: skip


def test_a_run_without_steps_has_no_figure_8(runs: list[Source]) -> None:
    runs[0].metrics.clear()
    with pytest.raises(UserError, match="no training step"):
        paper.figure_8(runs[0])


def test_a_figure_of_another_kind_is_refused(runs: list[Source], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.svg"):
        paper.save(paper.figure_8(runs[0]), tmp_path / "figure.exe")


@pytest.mark.parametrize("behind", [0, 3, 7])
def test_lag_finds_how_far_alpha_follows_behind(tmp_path: Path, toy_corpus: Corpus, behind: int) -> None:
    run = write_run(tmp_path / "run", toy_corpus, 4)
    generator = np.random.default_rng(0)
    losses = 2 + np.cumsum(generator.normal(0, 0.1, (100, 8)), axis=0)
    wanted = np.exp(-losses / 0.25)
    wanted /= wanted.sum(1, keepdims=True)
    steps = range(1, 101)
    alpha = [wanted[max(0, i - behind)].tolist() for i in range(100)]
    write_lines(
        run.path / "metrics.jsonl", [{"step": s, "tau": 0.25, "alpha": a} for s, a in zip(steps, alpha, strict=True)]
    )
    write_lines(
        run.path / "visits.jsonl",
        [{"step": s, "id": "x", "nll": n} for s, n in zip(steps, losses.tolist(), strict=True)],
    )
    found = paper.lag(Source(run))
    assert found is not None
    assert found.steps == behind
    assert found.correlation == pytest.approx(1)


def test_the_permutation_test_finds_a_planted_preference_and_calls_noise_noise() -> None:
    generator = np.random.default_rng(1)
    labels = ["algebra", "geometry", "counting"] * 20
    noise = [preference_test(labels, generator.dirichlet(np.ones(8), 60), seed).p for seed in range(20)]
    assert sum(p < 0.05 for p in noise) <= 4
    values = generator.dirichlet(np.ones(8), 60)
    values[1::3, 2] += 0.5
    found = preference_test(labels, values, 0)
    assert found.p == 0.001
    assert found.marked[found.subjects.index("geometry")][2]
    assert "The subject matters" in found.sentence


def test_equal_weights_everywhere_are_no_preference() -> None:
    found = preference_test(["a", "a", "b", "b"], np.full((4, 8), 0.125), 0)
    assert found.p == 1
    assert not any(map(any, found.marked))


def test_mind_report_writes_the_figures(runs: list[Source], capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(source.run.path) for source in runs]
    assert mind(["report", *paths, "--output", "both.html", "--figures", "figures", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "figures/figure-6.pdf" in told["figures"]
    assert all(Path(file).is_file() for file in told["figures"])
    assert any("figure-4" in sentence for sentence in told["missing"])
    assert mind(["report", *paths, "--output", "both.html", "--figures", "both.html"]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_the_notebook_is_valid_and_its_cells_run(
    runs: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = json.loads((ROOT / "docs" / "figures.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    latent = tmp_path / "latent"
    for name in ("map.json", "map-text.json", "map-student-a.json", "map-student-b.json"):
        write_map(latent / name)
    monkeypatch.setenv("MIND_RUNS", ":".join(str(source.run.path) for source in runs))
    monkeypatch.setenv("MIND_LATENT", str(latent))
    space: dict[str, Any] = {}
    for cell in notebook["cells"]:
        assert isinstance(cell["source"], list)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]), space)
    assert {file.name for file in Path("figures").iterdir()} == {
        f"figure-{name}.pdf" for name in ("4", "5", "6", "7", "7-probe", "8")
    }
