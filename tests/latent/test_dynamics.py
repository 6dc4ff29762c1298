"""Losses and scores over time where not every path is read at every visit, or is there at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from mind_distill.corpus.perspectives import STANDARD
from mind_distill.corpus.read import Corpus
from mind_distill.latent import dynamics
from mind_distill.latent.trace import Trace, read_trace
from tests.latent.worlds import TAU, K, lessons, write_world
from tests.report.toy_run import write_lines

UNIFORM = {"name": "uniform"}


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Losses and weights by lot, the weights after the losses."""
    world = read_trace(write_world(tmp_path / "run", np.zeros(K), method=UNIFORM, visits=8, noise=0.3))
    return replace(world, alpha=dynamics.preference_of(world.nll, TAU), score=-world.nll)


def seeded() -> np.random.Generator:
    return np.random.default_rng(0)


def kept(trace: Trace, rows: np.ndarray) -> Trace:
    arrays = {key: getattr(trace, key)[rows] for key in ("step", "problem", "nll", "alpha", "score")}
    return replace(trace, **arrays)


def test_a_visit_that_was_read_in_part_tells_nothing_of_the_lag(trace: Trace) -> None:
    partly = seeded().random(len(trace.step)) < 0.3
    nll = np.where(partly[:, None] & (np.arange(K) > 2), np.nan, trace.nll)
    found = dynamics.lag(replace(trace, nll=nll), TAU, seeded())
    assert found is not None
    assert found == dynamics.lag(kept(trace, np.flatnonzero(~partly)), TAU, seeded())


def test_a_problem_read_once_is_not_held_against_its_own_mean(trace: Trace) -> None:
    first = np.array([problem not in trace.problem[:row] for row, problem in enumerate(trace.problem)])
    nll = np.where(first[:, None] | (np.arange(K) < 3), trace.nll, np.nan)
    assert dynamics.lag(replace(trace, nll=nll), TAU, seeded()) is None  # only the first two steps hold a whole visit
    few = np.where((first | (trace.problem < 8))[:, None] | (np.arange(K) < 3), trace.nll, np.nan)
    found = dynamics.lag(replace(trace, nll=few), TAU, seeded())
    assert found is not None and not found.within_problems


def test_a_path_that_is_not_there_has_no_score(tmp_path: Path, trace: Trace) -> None:
    folder = tmp_path / "run"
    first, *others = lessons(24)
    Corpus([replace(first, rationales=first.rationales[1:]), *others], STANDARD, "world").save(tmp_path / "lacking")
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings | {"corpus": {"source": str(tmp_path / "lacking")}}))
    rows = [json.loads(line) for line in (folder / "visits.jsonl").read_text().splitlines()]
    write_lines(folder / "visits.jsonl", [row | {"score": [0.0] * K} for row in rows])
    score = read_trace(folder).score
    assert score is not None
    lacking = np.array([row["id"] == first.problem.id for row in rows])
    assert np.isnan(score[lacking, 0]).all()
    assert np.isnan(score).sum() == lacking.sum()


def test_every_problem_counts_alike_in_the_agreement_and_in_what_it_is_held_against(trace: Trace) -> None:
    """One problem is visited a hundred times and agrees with itself alone; chance must not be drawn towards it."""
    score = np.where((trace.problem == 0)[:, None], trace.score, -trace.score)
    often = np.concatenate([np.arange(len(trace.step)), np.repeat(np.flatnonzero(trace.problem == 0), 100)])
    found = dynamics.agreement(kept(replace(trace, score=score), often), seeded())
    assert found is not None
    others = len(trace.lessons) - 1
    assert found.whole.value == pytest.approx((1 - others) / (1 + others))
    assert found.first_third == pytest.approx(found.whole.value)
    assert abs(found.exchanged) < 0.1


def test_what_was_not_read_in_a_third_is_unknown_and_not_nought(trace: Trace) -> None:
    nll = np.where((trace.third == 2)[:, None], np.nan, trace.nll)
    found = dynamics.agreement(replace(trace, nll=nll), seeded())
    assert found is not None
    assert found.first_third == pytest.approx(1)
    assert found.last_third is None


def test_without_two_paths_read_at_one_visit_there_is_no_agreement_to_tell(trace: Trace) -> None:
    nll = np.where(np.arange(K) == 0, trace.nll, np.nan)
    assert dynamics.agreement(replace(trace, nll=nll), seeded()) is None
