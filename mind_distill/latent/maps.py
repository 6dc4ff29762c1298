"""Pictures of z: t-SNE, UMAP or principal components, with new points placed into an existing map. No distance is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mind_distill.config import Settings
from mind_distill.latent.mixture import Floats


class MapSettings(Settings):
    method: Literal["tsne", "umap", "pca"] = "tsne"
    perplexity: float = 30.0


@dataclass(frozen=True)
class Map:
    """xy [n, 2] of the points that made the map, xy of each further group placed into it, and how it was made."""

    xy: Floats
    placed: list[Floats]
    note: str

    def place(self, new: Floats) -> Floats:
        """xy [m, 2] of new points; the map does not move. scikit-learn's t-SNE cannot: give them to `fit_map` as `also`."""


def fit_map(z: Floats, settings: MapSettings, seed: int, also: Sequence[Floats] = ()) -> Map:
    """A map of z; the groups in `also` are placed into it (without openTSNE they are fitted jointly, and the note says so)."""
