"""Section 3.2: a Dirichlet-process mixture of diagonal Gaussians, truncated stick-breaking, fitted by scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mind_distill.config import Settings

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


class MixtureSettings(Settings):
    """How the mixture is fitted; the defaults are those tested on synthetic states (the paper gives none)."""

    components: int = 30
    """Where the stick-breaking is cut off; far above the number that is expected."""
    concentration: float = 1.0
    """Of the Dirichlet process; results hardly change between 0.001 and 10."""
    iterations: int = 300
    """Most steps of variational inference."""
    regularisation: float = 1e-4
    """Added to every variance."""
    active_share: float = 0.01
    """A component is active if at least this share of the points is assigned to it."""


@dataclass(frozen=True)
class Mixture:
    """A fitted mixture as plain arrays: weights [C], means [C, L], variances [C, L]."""

    weights: Floats
    means: Floats
    variances: Floats
    converged: bool
    iterations: int
    active_share: float

    def log_density(self, z: Floats) -> Floats: ...  # [n]
    def responsibilities(self, z: Floats) -> Floats: ...  # [n, C]
    def assign(self, z: Floats) -> Integers: ...  # [n]
    def active(self, z: Floats) -> Integers: ...  # the numbers of the active components, largest first


def fit_mixture(z: Floats, settings: MixtureSettings, seed: int) -> Mixture: ...
