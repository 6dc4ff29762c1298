"""Section 3.2 in numbers: do clusters agree with perspectives or with subjects, how far apart, how well told apart on held-out problems."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from mind_distill.config import Settings
from mind_distill.latent.mixture import Floats, Integers


class GeometrySettings(Settings):
    draws: int = 200
    """Bootstrap resamples of problems, and permutations of labels within them."""
    folds: int = 5
    sample: int = 4000
    """Most points of the silhouette, whose cost grows with the square."""


class Points(NamedTuple):
    """n points: place, component of the mixture, and numbers of perspective (or model), problem and subject (one per problem)."""

    z: Floats  # [n, L]
    component: Integers  # [n]
    perspective: Integers  # [n], 0..K-1
    problem: Integers  # [n]
    subject: Integers  # [n]


@dataclass(frozen=True)
class Measure:
    """A number with its 95 % bootstrap interval over problems, and what chance gives (mean, 95th percentile, p)."""

    name: str
    label: str
    value: float
    low: float
    high: float
    null: float | None = None
    null_high: float | None = None
    p: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(points: Points, settings: GeometrySettings, seed: int) -> list[Measure]:
    """All measures of a space. Names: ari_perspective nmi_perspective ami_perspective silhouette_perspective probe_perspective
    distance_perspective, and ari_subject nmi_subject ami_subject silhouette_subject probe_subject."""


def centroid_distances(z: Floats, perspective: Integers) -> Floats: ...  # [K, K]
