"""Inclination by hand, and students that collapse, cover, or lie outside."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mind_distill.latent.inclination import (
    Answers,
    Centroids,
    component_centroids,
    inclinations,
    incline,
    perspective_centroids,
    radius_factor,
    task_dependence,
)
from mind_distill.latent.mixture import Mixture
from tests.latent.synthetic import make_points

NAMES = list("abcdefgh")


@pytest.fixture
def specialists() -> Answers:
    points = make_points(0, apart=8.0, problems=80)
    return Answers(
        points.z,
        points.problem,
        ["even" if p % 2 == 0 else "odd" for p in points.problem],
        [f"s{p % 3}" for p in points.problem],
    )


@pytest.fixture
def centroids(specialists: Answers) -> Centroids:
    return perspective_centroids(specialists.z, np.tile(np.arange(8), 80), NAMES)


def picked(specialists: Answers, choose: list[int]) -> Answers:
    return specialists.take(np.array([8 * problem + k for problem, k in enumerate(choose)]))


def test_inclination_by_hand() -> None:
    centroids = Centroids("perspective", ["a", "b"], np.array([[0.0, 0.0], [3.0, 4.0]]), tau=2.5, radius=1.0)
    found = incline(np.array([[0.0, 0.0], [1.5, 2.0]]), centroids)
    np.testing.assert_allclose(found, [[1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))], [0.5, 0.5]])


def test_a_student_of_one_way_is_collapsed_and_one_of_all_ways_covers(
    specialists: Answers, centroids: Centroids
) -> None:
    rng = np.random.default_rng(0)
    (one, *_) = inclinations("one", picked(specialists, [2] * 80), centroids, 100, 0, specialists)
    (every, *_) = inclinations(
        "all", picked(specialists, rng.integers(8, size=80).tolist()), centroids, 100, 0, specialists
    )
    assert np.argmax(one.inclination) == 2 and one.collapse.value > 0.9 and one.visited.value <= 0.25
    assert one.coverage.p < 0.05 and one.coverage.high < every.coverage.low
    assert every.visited.value == 1.0 and every.collapse.value < 0.2 and every.coverage.p > 0.05
    for row in (one, every):
        assert sum(row.inclination) == pytest.approx(1)
        assert all(low <= value <= high for low, value, high in zip(row.low, row.inclination, row.high, strict=True))


def test_a_student_far_from_all_is_diffuse_and_outside(specialists: Answers, centroids: Centroids) -> None:
    far = picked(specialists, [0] * 80)._replace(z=np.random.default_rng(1).normal(size=(80, 8)) * 0.1 + 30)
    (row, *_) = inclinations("far", far, centroids, 50, 0, specialists)
    assert row.outside.value == 1.0
    (own, *_) = inclinations("own", specialists, centroids, 50, 0)
    assert own.outside.value < 0.03 and own.outside.p is None


def test_a_ninth_model_like_a_specialist_is_outside_as_seldom_as_the_specialists_are() -> None:
    rng = np.random.default_rng(0)
    apart = np.concatenate([6 * np.eye(8, 16), 6 * np.eye(1, 16)])  # the ninth is like the first
    drawn = apart + rng.normal(size=(3000, 9, 16)) + 9 * rng.normal(size=(3000, 1, 16))
    drawn -= drawn[:, :8].mean(1, keepdims=True)
    problem, label = np.repeat(np.arange(3000), 8), np.tile(np.arange(8), 3000)
    eight = Answers(drawn[:, :8].reshape(-1, 16), problem, ["b"] * 24_000, [""] * 24_000)
    ninth = Answers(drawn[:, 8], np.arange(3000), ["b"] * 3000, [""] * 3000)
    centroids = perspective_centroids(eight.z, label, NAMES)
    (row,) = inclinations("ninth", ninth, centroids, 60, 0, eight, radius_factor(8))
    assert 0.005 < row.outside.value < 0.015
    assert row.outside.null == pytest.approx(0.01, abs=0.002) and row.outside.p > 0.05


def test_a_row_for_each_benchmark_and_each_subject_of_it(specialists: Answers, centroids: Centroids) -> None:
    rows = inclinations("m", picked(specialists, [1] * 80), centroids, 20, 0)
    told = [(row.benchmark, row.subject) for row in rows]
    assert told[0] == ("even", None) and len(told) == len(set(told)) == 8
    assert sum(row.n for row in rows if row.subject is None) == sum(row.n for row in rows if row.subject) == 80
    kept = json.loads(json.dumps([row.to_json() for row in rows], allow_nan=False))
    assert {
        "model",
        "benchmark",
        "subject",
        "n",
        "inclination",
        "low",
        "high",
        "coverage",
        "sharpness",
        "outside",
    } <= set(kept[0])


def test_dependence_on_the_task_is_found_where_it_is_and_nowhere_else(
    specialists: Answers, centroids: Centroids
) -> None:
    adapts = picked(specialists, [1 if p % 2 else 5 for p in range(80)])
    found = task_dependence(adapts, centroids, "benchmark", 100, 0)
    assert found.value > 0.8 and found.p < 0.05
    assert task_dependence(adapts, centroids, "subject", 100, 0).p > 0.05
    by_lot = picked(specialists, np.random.default_rng(0).integers(8, size=80).tolist())
    assert task_dependence(by_lot, centroids, "benchmark", 100, 0).p > 0.05


def test_components_get_the_names_of_the_perspectives_they_agree_with(
    specialists: Answers, centroids: Centroids
) -> None:
    order = [3, 0, 7, 1, 2, 6, 5, 4]
    means = np.concatenate([centroids.means[order], [[40.0] * 8]])
    mixture = Mixture(np.full(9, 1 / 9), means, np.ones((9, 8)), True, 1)
    found = component_centroids(specialists.z, np.tile(np.arange(8), 80), NAMES, mixture)
    assert len(found.names) == 8  # the ninth holds no point
    for name, mean in zip(found.names, found.means, strict=True):
        np.testing.assert_allclose(mean, centroids.means[NAMES.index(name)])
