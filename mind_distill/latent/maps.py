"""Pictures of z: t-SNE, UMAP or principal components, new points placed into an existing map. No distance is measured on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mind_distill.config import Settings
from mind_distill.errors import UserError
from mind_distill.latent.mixture import Floats

EXACT_NEIGHBOURS = 5000  # points up to which neighbours are searched for exactly; beyond, openTSNE asks Annoy


class MapSettings(Settings):
    """How a picture is drawn."""

    method: Literal["tsne", "umap", "pca"] = "tsne"
    """`tsne`: openTSNE if installed, else scikit-learn. `umap` needs umap-learn."""
    perplexity: float = Field(30.0, gt=0)
    """Of t-SNE: how many neighbours a point has, roughly; at most a third of the points. UMAP's `n_neighbors` as well."""


@dataclass(frozen=True)
class Map:
    """xy [n, 2] of the points that made the map, xy of each group placed into it, and how it was made."""

    xy: Floats
    placed: Sequence[Floats]
    note: str
    _place: Callable[[Floats], Floats] | None = field(default=None, repr=False, compare=False)

    def place(self, new: Floats) -> Floats:
        """xy [m, 2] of new points; the map does not move. scikit-learn's t-SNE cannot: give them to `fit_map` as `also`."""
        if self._place is None:
            raise UserError(
                "scikit-learn's t-SNE places no new points into a map; pip install 'mind-distill[latent]' brings openTSNE, "
                "which does, or set map.method: pca."
            )
        return self._place(new)


def fit_map(z: Floats, settings: MapSettings, seed: int, also: Sequence[Floats] = ()) -> Map:
    """A map of z [n, L]; the groups in `also` are placed into it (without openTSNE they are fitted jointly, and `note` says so)."""
    if len(z) < 5:
        raise UserError(f"A map of {len(z)} points shows nothing; at least 5 are needed.")
    if settings.method == "pca":
        return _pca(z, also)
    if settings.method == "umap":
        return _umap(z, settings, seed, also)
    return _open_tsne(z, settings, seed, also) if find_spec("openTSNE") else _joint_tsne(z, settings, seed, also)


def _pca(z: Floats, also: Sequence[Floats]) -> Map:
    mean = z.mean(0)
    _, size, directions = np.linalg.svd(z - mean, full_matrices=False)
    basis = directions[:2].T * np.sign(directions[:2, np.abs(directions[:2]).argmax(1)].diagonal())
    share = (size[:2] ** 2).sum() / max((size**2).sum(), 1e-12)

    def place(new: Floats) -> Floats:
        return np.asarray((new - mean) @ basis)

    note = f"First two principal components of z, {share:.0%} of its variance."
    return Map(place(z), [place(group) for group in also], note, place)


def _open_tsne(z: Floats, settings: MapSettings, seed: int, also: Sequence[Floats]) -> Map:
    library: Any = import_module("openTSNE")
    perplexity = _perplexity(settings, len(z))
    # One job, so that sums come out in one order: the same map on any machine's number of cores.
    model = library.TSNE(
        perplexity=perplexity,
        initialization="pca",
        neighbors="exact" if len(z) <= EXACT_NEIGHBOURS else "annoy",
        random_state=seed,
        n_jobs=1,
    )
    embedding: Any = model.fit(np.asarray(z, np.float64))
    # openTSNE moves the whole map to this middle when it first places a point; done now, the map stays where it is.
    embedding -= (np.max(embedding, axis=0) + np.min(embedding, axis=0)) / 2

    def place(new: Floats) -> Floats:
        if not len(new):
            return np.empty((0, 2))
        placed = embedding.transform(np.asarray(new, np.float64), perplexity=min(5.0, perplexity))
        return np.asarray(placed, np.float64)

    note = f"t-SNE of z (openTSNE {library.__version__}), perplexity {perplexity:g}, seed {seed}, from principal components."
    if also:
        note += " Further models were placed into the finished map."
    return Map(np.array(embedding, np.float64), [place(group) for group in also], note, place)


def _joint_tsne(z: Floats, settings: MapSettings, seed: int, also: Sequence[Floats]) -> Map:
    from sklearn.manifold import TSNE

    whole = np.concatenate([z, *also])
    perplexity = _perplexity(settings, len(whole))
    xy = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1).fit_transform(
        np.asarray(whole, np.float64)
    )
    parts = np.split(np.asarray(xy, np.float64), np.cumsum([len(z), *(len(group) for group in also)])[:-1])
    note = f"t-SNE of z (scikit-learn), perplexity {perplexity:g}, seed {seed}, from principal components."
    if also:
        note += " All models were drawn together, for openTSNE is not installed: points of one move the others'."
    return Map(parts[0], parts[1:], note)


def _umap(z: Floats, settings: MapSettings, seed: int, also: Sequence[Floats]) -> Map:
    if find_spec("umap") is None:
        raise UserError(
            "map.method: umap needs umap-learn, which is not installed: pip install 'mind-distill[umap]', or set tsne."
        )
    library: Any = import_module("umap")
    neighbours = int(_perplexity(settings, len(z)))
    model = library.UMAP(n_neighbors=max(2, neighbours), random_state=seed, n_jobs=1).fit(z)

    def place(new: Floats) -> Floats:
        return np.asarray(model.transform(new), np.float64) if len(new) else np.empty((0, 2))

    note = f"UMAP of z, {neighbours} neighbours, seed {seed}."
    return Map(np.asarray(model.embedding_, np.float64), [place(group) for group in also], note, place)


def _perplexity(settings: MapSettings, points: int) -> float:
    return min(settings.perplexity, max(1.0, (points - 1) / 3))
