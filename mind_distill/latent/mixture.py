"""Section 3.2: a Dirichlet-process mixture of diagonal Gaussians, truncated stick-breaking, fitted by scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mind_distill.config import Settings

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
ROWS = 8192  # taken at a time, so that memory does not grow with the points


class MixtureSettings(Settings):
    """How the mixture is fitted; the paper names a Dirichlet process and no more, the defaults were tested on synthetic states."""

    components: int = Field(30, ge=1)
    """Where the stick-breaking is cut off; far above the number expected."""
    concentration: float = Field(1.0, gt=0)
    """Of the Dirichlet process; results hardly change between 0.001 and 10."""
    iterations: int = Field(300, ge=1)
    """Most steps of variational inference."""
    regularisation: float = Field(1e-4, gt=0)
    """Added to every variance."""
    active_share: float = Field(0.01, gt=0, le=1)
    """A component is active if at least this share of the points is assigned to it."""


class Likelihood(NamedTuple):
    """Mean log density of a point: as fitted, held out, and held out under a single Gaussian fitted to the same points."""

    fitted: float
    held_out: float
    one_gaussian: float


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture as plain arrays: weights [C], means [C, L], variances [C, L]."""

    weights: Floats
    means: Floats
    variances: Floats
    converged: bool
    iterations: int
    active_share: float = 0.01

    def log_density(self, z: Floats) -> Floats:
        """Of each point [n]."""
        return np.concatenate([_log_sum(self._joint(rows))[:, 0] for rows in _slices(z)])

    def responsibilities(self, z: Floats) -> Floats:
        """How far each component accounts for each point [n, C]; rows sum to one."""
        parts = [self._joint(rows) for rows in _slices(z)]
        return np.concatenate([np.exp(part - _log_sum(part)) for part in parts])

    def assign(self, z: Floats) -> Integers:
        """The component most responsible for each point [n]."""
        return np.concatenate([self._joint(rows).argmax(1) for rows in _slices(z)])

    def active(self, z: Floats) -> Integers:
        """The numbers of the active components, largest first."""
        counts = np.bincount(self.assign(z), minlength=len(self.weights))
        order = np.argsort(-counts, kind="stable")
        return order[counts[order] >= max(1.0, self.active_share * len(z))]

    def _joint(self, z: Floats) -> Floats:
        """log(weight * density) of each point and component [n, C]."""
        z = np.asarray(z, np.float64)
        precision = 1.0 / self.variances
        distance = z**2 @ precision.T - 2 * z @ (self.means * precision).T + (self.means**2 * precision).sum(1)
        constant = np.log(2 * np.pi * self.variances).sum(1)
        weight = np.log(np.maximum(self.weights, np.finfo(np.float64).tiny))
        return np.asarray(weight - 0.5 * (distance + constant))


def fit_mixture(z: Floats, settings: MixtureSettings, seed: int) -> Mixture:
    """The mixture of these points; `converged` says whether inference came to rest within the steps allowed."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import BayesianGaussianMixture

    model = BayesianGaussianMixture(
        n_components=min(settings.components, len(z)),
        covariance_type="diag",
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=settings.concentration,
        init_params="k-means++",
        max_iter=settings.iterations,
        reg_covar=settings.regularisation,
        random_state=seed,
    )
    with warnings.catch_warnings():  # it is told as `converged`
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.asarray(z, np.float64))
    weights = np.maximum(model.weights_, 0.0)  # the last stick can come out a rounding error below nought
    return Mixture(
        weights / weights.sum(),
        model.means_,
        model.covariances_,
        bool(model.converged_),
        int(model.n_iter_),
        settings.active_share,
    )


def likelihood(mixture: Mixture, fitted: Floats, held_out: Floats, regularisation: float) -> Likelihood:
    """How well the mixture foretells points that it was not fitted on, beside a single Gaussian, both equally regularised."""
    single = Mixture(np.ones(1), fitted.mean(0)[None], fitted.var(0)[None] + regularisation, True, 1)
    return Likelihood(
        float(mixture.log_density(fitted).mean()),
        float(mixture.log_density(held_out).mean()),
        float(single.log_density(held_out).mean()),
    )


def _log_sum(joint: Floats) -> Floats:
    from scipy.special import logsumexp  # type: ignore[import-untyped]

    return np.asarray(logsumexp(joint, axis=1, keepdims=True))


def _slices(z: Floats) -> list[Floats]:
    return [z[start : start + ROWS] for start in range(0, max(1, len(z)), ROWS)]
