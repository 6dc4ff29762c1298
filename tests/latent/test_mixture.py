"""The mixture on data whose components are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from mind_distill.latent.mixture import Mixture, MixtureSettings, fit_mixture, likelihood
from tests.latent.synthetic import make_clusters


@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize("seed", [0, 1])
def test_known_components_five_sigma_apart_are_recovered(count: int, seed: int) -> None:
    z, label = make_clusters(seed, apart=5.0, count=count)
    mixture = fit_mixture(z, MixtureSettings(), seed=0)
    assert mixture.converged
    assert abs(len(mixture.active(z)) - count) <= 1
    assert adjusted_rand_score(label, mixture.assign(z)) >= 0.9


def test_responsibilities_sum_to_one_and_agree_with_the_assignment() -> None:
    z, _ = make_clusters(2, apart=3.0, n=500)
    mixture = fit_mixture(z, MixtureSettings(components=10), seed=0)
    shares = mixture.responsibilities(z)
    np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-9)
    assert (shares.argmax(1) == mixture.assign(z)).all()


def test_the_density_is_that_of_the_gaussians() -> None:
    mixture = Mixture(np.array([0.25, 0.75]), np.array([[0.0], [2.0]]), np.array([[1.0], [4.0]]), True, 1)
    z = np.array([[0.0], [3.0]])
    by_hand = [
        np.log(
            sum(
                w * np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
                for w, m, v in ((0.25, 0, 1), (0.75, 2, 4))
            )
        )
        for x in (0.0, 3.0)
    ]
    np.testing.assert_allclose(mixture.log_density(z), by_hand, rtol=1e-12)


def test_a_mixture_foretells_clusters_better_than_one_gaussian_and_noise_no_better() -> None:
    z, _ = make_clusters(3, apart=6.0)
    apart = likelihood(fit_mixture(z[:1500], MixtureSettings(), 0), z[:1500], z[1500:], 1e-4)
    assert apart.held_out > apart.one_gaussian + 1
    noise = np.random.default_rng(0).normal(size=(2000, 16))
    even = likelihood(fit_mixture(noise[:1500], MixtureSettings(), 0), noise[:1500], noise[1500:], 1e-4)
    assert even.held_out < even.one_gaussian + 0.05


def test_the_single_gaussian_is_regularised_as_the_mixture_is() -> None:
    z = np.random.default_rng(4).normal(size=(300, 8))
    wide = fit_mixture(z, MixtureSettings(components=1, regularisation=5.0), seed=0)
    found = likelihood(wide, z[:200], z[200:], 5.0)
    assert found.one_gaussian == pytest.approx(found.held_out, abs=0.5)


def test_too_few_steps_are_told_as_not_converged() -> None:
    z, _ = make_clusters(1, apart=2.0, n=400)
    assert not fit_mixture(z, MixtureSettings(iterations=2), seed=0).converged
