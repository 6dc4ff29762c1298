"""Strength, chance and agreement of preferences; who follows whom; the answers in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mind_distill.latent import dynamics, effects
from mind_distill.latent.effects import Estimate
from mind_distill.latent.trace import Trace, read_trace
from mind_distill.latent.verdict import Claim, Kept, answer
from tests.latent.worlds import K, write_world

ONE = effects.membership(None, 40)
LABELS = [f"s{i % 4}" for i in range(40)]


def test_the_preference_of_losses_is_their_softmax_and_blind_to_what_is_unknown() -> None:
    losses = np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, np.nan]])
    found = effects.preference_of(losses, 0.5)
    np.testing.assert_allclose(found[0, :2], [1 / (1 + np.exp(-2)), 1 - 1 / (1 + np.exp(-2))])
    assert np.isnan(found[0, 2])
    assert np.isnan(found[1]).all()


def test_strength_is_the_share_of_the_weight_that_is_moved() -> None:
    table = np.tile([0.7, 0.1, 0.1, 0.1], (40, 1))
    assert effects.strength(table, ONE) == pytest.approx(0.45)
    split = np.array([[0.9, 0.1] if i % 2 else [0.1, 0.9] for i in range(40)])
    member = effects.membership([str(i % 2) for i in range(40)], 40)
    assert effects.strength(split, member) == pytest.approx(0.4)
    assert effects.strength(table, member) == pytest.approx(0)
    assert effects.chance(table, member, np.random.default_rng(0)) == 1


def test_chance_finds_a_planted_effect_and_calls_noise_noise() -> None:
    rng = np.random.default_rng(2)
    member = effects.membership(LABELS, 40)
    for group, planted in ((ONE, np.zeros(K)), (member, None)):
        found = []
        for seed in range(12):
            table = rng.dirichlet(np.ones(K), 40)
            found.append(effects.chance(table, group, np.random.default_rng(seed)))
        assert sum(p < 0.05 for p in found) <= 3
        table = rng.dirichlet(np.ones(K), 40)
        table[slice(None) if planted is not None else slice(0, None, 4), 3] += 0.4
        assert effects.chance(table, group, rng) < 0.01


def test_agreement_tells_the_same_preference_from_another_one() -> None:
    rng = np.random.default_rng(3)
    shape = rng.dirichlet(np.ones(K))
    one, other = (shape + rng.normal(0, 0.01, (40, K)) for _ in range(2))
    same, opposite = (effects.agreement(one, sign * other, ONE, np.random.default_rng(0)) for sign in (1, -1))
    assert same is not None
    assert same.low > 0.9
    assert same.p is not None
    assert same.p < 0.01
    assert opposite is not None
    assert opposite.high < -0.9
    assert effects.agreement(one, np.ones((40, K)), ONE, rng) is None


def test_groups_of_one_problem_are_left_out() -> None:
    assert effects.membership(["a", "a", "b", None], 4).tolist() == [[1, 1, 0, 0]]


def drifting(folder: Path, behind: int, linked: bool = True) -> Trace:
    """A trace of 160 steps whose alpha repeats what the losses asked for `behind` steps before."""
    trace = read_trace(write_world(folder, np.zeros(K), None, {"name": "uniform"}, visits=40, count=16, a_step=4))
    rng = np.random.default_rng(7)
    walks = [2 + np.cumsum(rng.normal(0, 0.05, (161 + behind, K)), axis=0) for _ in range(2)]
    wanted = effects.preference_of(walks[0] if linked else walks[1], 0.25)
    nll = walks[0][trace.step + behind]
    return Trace(**{**vars(trace), "nll": nll, "alpha": wanted[trace.step]})


@pytest.mark.parametrize("behind", [0, 4, 9])
def test_lag_finds_how_far_alpha_is_behind(tmp_path: Path, behind: int) -> None:
    found = dynamics.lag(drifting(tmp_path / "run", behind), 0.25, np.random.default_rng(0))
    assert found is not None
    assert abs(found.steps - behind * found.steps_per_point) <= found.steps_per_point * (behind > 0) + behind
    assert found.low <= found.steps <= found.high
    assert found.correlation > 0.6
    assert found.p < 0.05


def test_series_that_have_nothing_to_do_with_one_another_have_no_lag(tmp_path: Path) -> None:
    found = dynamics.lag(drifting(tmp_path / "run", 0, linked=False), 0.25, np.random.default_rng(0))
    assert found is None or found.p > 0.05


def test_rank_agreement_is_spearmans_with_shared_ranks(tmp_path: Path) -> None:
    trace = read_trace(write_world(tmp_path / "run", np.zeros(K), None, {"name": "uniform"}, visits=1, count=8))
    nll = np.tile(np.arange(8.0), (8, 1))
    assert np.allclose(dynamics.rank_agreement(Trace(**{**vars(trace), "nll": nll, "score": -nll})), 1)
    assert np.allclose(dynamics.rank_agreement(Trace(**{**vars(trace), "nll": nll, "score": nll})), -1)
    equal = dynamics.rank_agreement(Trace(**{**vars(trace), "nll": nll, "score": np.ones_like(nll)}))
    assert np.allclose(equal, 0)
    nll[:, 1:] = np.nan
    assert np.isnan(dynamics.rank_agreement(Trace(**{**vars(trace), "nll": nll, "score": -np.ones_like(nll)}))).all()


KEPT = Kept(0.4, 0.05, 0.1, 0.05)
SAME, OTHER, OPEN = Estimate(0.9, 0.6, 0.97, 0.001), Estimate(-0.2, -0.5, 0.2, 0.7), Estimate(0.4, -0.1, 0.8, 0.2)


@pytest.mark.parametrize(
    ("claim", "word", "reason"),
    [
        (Claim(None, 0.1, 0.3, KEPT, 0.2, 0.001, SAME), "cannot be told", "nothing to explain"),
        (Claim(None, 0.4, 0.001), "cannot be told", "not trained again"),
        (Claim(None, 0.4, 0.001, Kept(0.4, 0.35, 0.5, 0.3)), "artefact", "keeps it"),
        (Claim(None, 0.4, 0.001, Kept(0.4, 0.1, 0.5, 0.1)), "cannot be told", "not beyond"),
        (Claim(None, 0.4, 0.001, KEPT), "cannot be told", "no run with uniform weights"),
        (Claim(None, 0.4, 0.001, KEPT, 0.2, 0.001, SAME), "intrinsic", "the same one"),
        (Claim(None, 0.4, 0.001, KEPT, 0.2, 0.001, OTHER), "artefact", "another one"),
        (Claim(None, 0.4, 0.001, KEPT, 0.2, 0.001, OPEN), "cannot be told", "is open"),
        (Claim("level", 0.4, 0.001, KEPT, 0.2, 0.2, SAME), "cannot be told", "chance explains"),
    ],
)
def test_each_pattern_of_numbers_has_its_answer(claim: Claim, word: str, reason: str) -> None:
    found = answer(claim, None)
    assert found.answer == word
    assert reason in found.because


def test_what_metanet_adds_is_said_beside_an_answer_only() -> None:
    pushed = Estimate(0.5, 0.2, 0.8)
    assert "MetaNet adds to it" in answer(Claim(None, 0.4, 0.001, KEPT, 0.2, 0.001, SAME), pushed).because
    assert "MetaNet adds" not in answer(Claim(None, 0.4, 0.001, KEPT), pushed).because
