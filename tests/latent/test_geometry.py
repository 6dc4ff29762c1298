"""The measures against a reference implementation, by hand, and under chance."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_samples,
    v_measure_score,
)

from mind_distill.errors import UserError
from mind_distill.latent.agreement import agreement
from mind_distill.latent.geometry import (
    GeometrySettings,
    _over_problems,
    _within_problems,
    centroid_distances,
    folds,
    measure,
    problem_bootstrap,
    resamples,
    told,
)
from mind_distill.latent.separation import correct_on_held_out, silhouettes
from tests.latent.synthetic import make_points

QUICK = GeometrySettings(draws=100, sample=300)


@pytest.mark.parametrize("seed", range(4))
def test_agreement_equals_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.integers(1 + 7 * seed, size=300)
    other = np.where(rng.random(300) < 0.5, one % 5, rng.integers(8, size=300))
    found = agreement(one, other)
    assert found.ari == pytest.approx(adjusted_rand_score(one, other), abs=1e-9)
    assert found.nmi == pytest.approx(normalized_mutual_info_score(one, other), abs=1e-9)
    assert found.nmi == pytest.approx(v_measure_score(one, other), abs=1e-9)
    assert found.ami == pytest.approx(adjusted_mutual_info_score(one, other), abs=1e-9)
    assert agreement(one, one) == pytest.approx((1.0, 1.0, 1.0))


def test_silhouettes_equal_the_reference_for_every_labelling_at_once() -> None:
    points = make_points(0, apart=2.0)
    other = np.random.default_rng(0).permutation(points.perspective)
    found = silhouettes(points.z, [points.perspective, other])
    np.testing.assert_allclose(found[0], silhouette_samples(points.z, points.perspective), atol=1e-6)
    np.testing.assert_allclose(found[1], silhouette_samples(points.z, other), atol=1e-6)


def test_the_probe_equals_discriminant_analysis_and_never_sees_the_problem_it_names() -> None:
    points = make_points(1, apart=1.5)
    fold = folds(points.problem, 4, np.random.default_rng(0))
    assert all(len(np.unique(fold[points.problem == p])) == 1 for p in np.unique(points.problem))
    right = correct_on_held_out(points.z, [points.perspective], fold)[0]
    expected = np.zeros(len(fold))
    for k in range(4):
        model = LinearDiscriminantAnalysis(solver="lsqr").fit(points.z[fold != k], points.perspective[fold != k])
        expected[fold == k] = model.predict(points.z[fold == k]) == points.perspective[fold == k]
    assert abs(right.mean() - expected.mean()) < 0.02


def test_a_probe_cannot_learn_a_problem_by_heart() -> None:
    """Labels that depend on the problem alone are named perfectly from its own place, and no better than by chance held out."""
    points = make_points(2, apart=0.0, problems=40)
    place = np.random.default_rng(0).normal(size=(40, 8))[points.problem] * 10
    labels = points.problem % 2
    right = correct_on_held_out(place, [labels], folds(points.problem, 5, np.random.default_rng(1)))[0]
    assert 0.2 < right.mean() < 0.8


def test_permutations_stay_within_problems_or_move_whole_problems() -> None:
    points = make_points(3, apart=1.0)
    for mixed in _within_problems(points.perspective, points.problem, 3, np.random.default_rng(0)):
        assert (mixed != points.perspective).any()
        for problem in np.unique(points.problem):
            assert sorted(mixed[points.problem == problem]) == list(range(8))
    for mixed in _over_problems(points.subject, points.problem, 3, np.random.default_rng(0)):
        assert all(len(set(mixed[points.problem == p])) == 1 for p in np.unique(points.problem))
        assert sorted(mixed) == sorted(points.subject)


def test_the_bootstrap_draws_whole_problems() -> None:
    problems = np.array([5, 5, 9, 9, 9, 2])
    for rows in resamples(problems, 5, np.random.default_rng(0)):
        drawn = np.bincount(problems[rows], minlength=10)
        assert drawn[5] % 2 == 0 and drawn[9] % 3 == 0 and drawn[5] / 2 + drawn[9] / 3 + drawn[2] == 3
    means = problem_bootstrap(np.ones((6, 2)), problems, 4, np.random.default_rng(0))
    assert (means == 1).all()


def test_a_true_effect_stands_out_from_chance_and_its_interval_holds_the_value() -> None:
    points = make_points(4, apart=4.0)
    found = {m.name: m for m in measure(points._replace(component=points.perspective), QUICK, seed=0)}
    for name in ("ari", "nmi", "ami", "silhouette", "probe", "distance"):
        told = found[f"{name}_perspective"]
        assert told.low <= told.value <= told.high and told.value > told.null_high and told.p == pytest.approx(1 / 101)
    assert found["ari_perspective"].value == 1.0
    assert all(found[f"{name}_subject"].p > 0.02 for name in ("ari", "silhouette", "probe"))


def test_the_interval_of_nothing_holds_nought_although_drawn_problems_repeat() -> None:
    """A problem drawn twice agrees with itself; uncorrected, that lifts the whole interval above nought in small data."""
    points = make_points(5, apart=0.0, problems=12)
    rng = np.random.default_rng(0)
    held = lifted = 0
    for _ in range(20):
        component = rng.integers(8, size=len(points.z))
        value = agreement(component, points.perspective).ari
        again = [agreement(component[r], points.perspective[r]).ari for r in resamples(points.problem, 60, rng)]
        found = told("ari", "", value, again)
        held += found.low <= 0 <= found.high
        lifted += np.percentile(again, 2.5) > 0
    assert held >= 16 and lifted >= 4


def test_chance_passes_about_as_often_as_it_should() -> None:
    passed = 0
    for seed in range(40):
        found = {
            m.name: m for m in measure(make_points(seed, 0.0, problems=10), GeometrySettings(draws=39, sample=80), seed)
        }
        passed += found["probe_perspective"].p <= 0.05
    assert passed <= 6


def test_measures_are_the_same_under_a_seed() -> None:
    points = make_points(6, apart=1.0, problems=20)
    settings = GeometrySettings(draws=10)
    assert measure(points, settings, 3) == measure(points, settings, 3) != measure(points, settings, 4)


def test_centroid_distances_by_hand() -> None:
    z = np.array([[0.0, 0.0], [0.0, 2.0], [3.0, 1.0], [3.0, 1.0]])
    np.testing.assert_allclose(centroid_distances(z, np.array([0, 0, 1, 1])), [[0, 3], [3, 0]])


def test_too_few_problems_and_broken_places_are_refused() -> None:
    few = make_points(0, 1.0, problems=4)
    with pytest.raises(UserError, match="come from 4 problems"):
        measure(few, QUICK, 0)
    broken = make_points(0, 1.0, problems=6)
    broken.z[0, 0] = np.nan
    with pytest.raises(UserError, match="not finite"):
        measure(broken, QUICK, 0)
