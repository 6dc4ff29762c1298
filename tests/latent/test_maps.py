"""Maps: the same under a seed, and new points placed without moving the map."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from mind_distill.errors import UserError
from mind_distill.latent import maps
from mind_distill.latent.maps import MapSettings, fit_map
from tests.latent.synthetic import make_clusters

has_open_tsne = pytest.mark.skipif(find_spec("openTSNE") is None, reason="openTSNE is not installed")


def nearest_label(xy: np.ndarray, base: np.ndarray, label: np.ndarray) -> np.ndarray:
    return label[np.linalg.norm(xy[:, None] - base[None], axis=-1).argmin(1)]


@has_open_tsne
def test_new_points_land_among_their_own_and_the_map_does_not_move() -> None:
    z, label = make_clusters(0, apart=8.0, n=240, count=4)
    whole = fit_map(z[:200], MapSettings(), 0, also=[z[200:]])
    alone = fit_map(z[:200], MapSettings(), 0)
    before = alone.xy.copy()
    assert (alone.place(z[200:]) == whole.placed[0]).all()
    assert (alone.xy == before).all() and (whole.xy == before).all()
    again = alone.place(z[:50])  # points that the map was made of land where they are
    assert np.linalg.norm(again - alone.xy[:50], axis=1).max() < 0.05 * np.ptp(alone.xy)
    assert (nearest_label(whole.placed[0], whole.xy, label[:200]) == label[200:]).mean() > 0.95
    assert alone.place(z[:0]).shape == (0, 2)


def test_without_open_tsne_the_groups_are_drawn_together_and_the_note_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "find_spec", lambda name: None)
    z, label = make_clusters(1, apart=8.0, n=120, count=4)
    drawn = fit_map(z[:100], MapSettings(), 0, also=[z[100:]])
    assert "drawn together" in drawn.note and "scikit-learn" in drawn.note
    assert (nearest_label(drawn.placed[0], drawn.xy, label[:100]) == label[100:]).mean() > 0.9
    with pytest.raises(UserError, match="openTSNE"):
        drawn.place(z)
    with pytest.raises(UserError, match="umap-learn"):
        fit_map(z, MapSettings(method="umap"), 0)


def test_principal_components_are_exact_and_of_one_sign() -> None:
    z, _ = make_clusters(2, apart=5.0, n=100)
    drawn = fit_map(z, MapSettings(method="pca"), 0, also=[z[:7]])
    np.testing.assert_allclose(drawn.placed[0], drawn.xy[:7])
    np.testing.assert_allclose(drawn.place(z[:3]), drawn.xy[:3])
    assert (np.diff(drawn.xy.var(0)) < 0).all() and abs(drawn.xy.mean()) < 1e-9


@pytest.mark.skipif(find_spec("umap") is None, reason="umap-learn is not installed")
def test_umap_places_new_points() -> None:
    z, label = make_clusters(0, apart=8.0, n=240, count=4)
    drawn = fit_map(z[:200], MapSettings(method="umap"), 0, also=[z[200:]])
    assert (nearest_label(drawn.placed[0], drawn.xy, label[:200]) == label[200:]).mean() > 0.9


def test_a_handful_of_points_is_no_map() -> None:
    with pytest.raises(UserError, match="at least 5"):
        fit_map(np.zeros((3, 4)), MapSettings(), 0)
