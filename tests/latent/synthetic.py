"""States with known causes: perspective, subject and problem each add an offset, the rest is heavy-tailed correlated noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mind_distill.latent.geometry import Points
from mind_distill.latent.mixture import Floats, Integers


class States(NamedTuple):
    states: Floats  # [n, d]
    perspective: Integers
    problem: Integers
    subject: Integers


def make_states(
    seed: int, problems: int = 100, models: int = 8, width: int = 64, apart: float = 3.0, noise: float = 0.3
) -> States:
    """Every model reads every problem; `apart` is the length of a perspective's offset, that of a subject is 6, a problem's 4."""
    rng = np.random.default_rng(seed)
    offsets, subjects, own = (_directions(n, width, rng) for n in (models, 5, problems))
    subject = rng.integers(5, size=problems)
    mixing = 0.5 * np.eye(width) + 0.5 * rng.normal(size=(width, width)) / np.sqrt(width)
    tails = np.sqrt(4 / rng.chisquare(4, size=(problems, models, 1)))
    shared = 6 * subjects[subject] + 4 * own
    states = apart * offsets + shared[:, None] + noise * tails * (rng.normal(size=(problems, models, width)) @ mixing)
    problem = np.repeat(np.arange(problems), models)
    flat = states.reshape(-1, width).astype(np.float32)
    return States(flat, np.tile(np.arange(models), problems), problem, subject[problem])


def make_clusters(seed: int, apart: float, n: int = 2000, count: int = 8, width: int = 16) -> tuple[Floats, Integers]:
    """Gaussians of unit spread, the nearest two `apart`."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(count, width))
    means *= apart / np.linalg.norm(means[:, None] - means[None], axis=-1)[np.triu_indices(count, 1)].min()
    label = rng.integers(count, size=n)
    return means[label] + rng.normal(size=(n, width)), label


def make_points(seed: int, apart: float, models: int = 8, problems: int = 60, width: int = 8) -> Points:
    """Places in z already centred by problem; one component, subjects of no effect."""
    rng = np.random.default_rng(seed)
    z = apart * _directions(models, width, rng) + rng.normal(size=(problems, models, width))
    z -= z.mean(1, keepdims=True)
    problem = np.repeat(np.arange(problems), models)
    label = np.tile(np.arange(models), problems)
    return Points(z.reshape(-1, width), rng.integers(6, size=len(label)), label, problem, problem % 3)


def _directions(count: int, width: int, rng: np.random.Generator) -> Floats:
    drawn = rng.normal(size=(count, width))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
