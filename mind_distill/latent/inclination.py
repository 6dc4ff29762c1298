"""Section 4.3, Figure 5: towards which of the specialists' ways of thinking does a student's own answer lean?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from mind_distill.latent.geometry import Measure
from mind_distill.latent.mixture import Floats, Integers, Mixture


@dataclass(frozen=True)
class Centroids:
    """Where the specialists lie: names [K], means [K, L], tau (median distance to the nearest) and the radius that holds 99 %."""

    kind: str  # "perspective" | "component"
    names: list[str]
    means: Floats
    tau: float
    radius: float


class Answers(NamedTuple):
    """A student's own answers: places [n, L], problem numbers [n], benchmark and subject of each."""

    z: Floats
    problem: Integers
    benchmark: list[str]
    subject: list[str]


@dataclass(frozen=True)
class Row:
    """A student on a benchmark (subject None) or on one subject of it."""

    model: str
    benchmark: str
    subject: str | None
    n: int
    inclination: list[float]
    low: list[float]
    high: list[float]
    coverage: Measure
    sharpness: Measure
    outside: Measure
    entropy: Measure
    collapse: Measure

    def to_json(self) -> dict[str, Any]: ...


def perspective_centroids(z: Floats, perspective: Integers, names: list[str]) -> Centroids: ...
def component_centroids(z: Floats, perspective: Integers, names: list[str], mixture: Mixture) -> Centroids: ...
def incline(z: Floats, centroids: Centroids) -> Floats: ...  # c [n, K], rows sum to one
def inclinations(model: str, answers: Answers, centroids: Centroids, draws: int, seed: int) -> list[Row]: ...
