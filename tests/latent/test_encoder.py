"""The encoder on states whose causes are known: what it must find, and what it must not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_info, threadpool_limits

from mind_distill.config import Settings
from mind_distill.errors import UserError
from mind_distill.latent.encoder import Encoder, EncoderSettings, _judge, fit_encoder
from mind_distill.latent.geometry import GeometrySettings, Measure, Points, measure
from mind_distill.latent.maps import MapSettings
from mind_distill.latent.mixture import MixtureSettings
from mind_distill.latent.reduction import Reduction, fit_reduction, problem_means, subtract
from mind_distill.latent.spaces import Reading, fit_space, number_problems
from mind_distill.latent.states import Point
from mind_distill.latent.states import States as Stored
from tests.latent.synthetic import States, make_states

QUICK = EncoderSettings(rounds=20, warm_up=5, components=32, hidden=64, latent=8)
PCA = EncoderSettings(kind="pca", components=32, latent=8)


def measures(encoder: Encoder, data: States, labels: np.ndarray | None = None) -> dict[str, Measure]:
    z = encoder.project(data.states, data.problem)
    shown = data.perspective if labels is None else labels
    points = Points(z, encoder.mixture.assign(z), shown, data.problem, data.subject)
    return {found.name: found for found in measure(points, GeometrySettings(draws=60, sample=400), seed=0)}


@pytest.fixture(scope="module")
def clear() -> States:
    return make_states(0)


@pytest.fixture(scope="module")
def coupled(clear: States) -> Encoder:
    torch.set_num_threads(1)
    return fit_encoder(clear.states, clear.problem, QUICK, seed=0)


def test_perspectives_are_found_and_subjects_are_not(clear: States, coupled: Encoder) -> None:
    found = measures(coupled, clear)
    assert found["ari_perspective"].low > 0.7 and found["ari_perspective"].p < 0.05
    assert found["probe_perspective"].value > 0.9
    assert found["ari_subject"].value < 0.05


def test_without_centring_the_clusters_are_subjects(clear: States) -> None:
    encoder = fit_encoder(clear.states, clear.problem, PCA.model_copy(update={"centre": False, "latent": 4}), seed=0)
    found = measures(encoder, clear)
    assert found["ari_subject"].value > 0.5 > found["ari_perspective"].value


def test_shuffled_labels_find_nothing(clear: States, coupled: Encoder) -> None:
    rng = np.random.default_rng(3)
    passed: Counter[str] = Counter()
    for _ in range(6):
        shuffled = clear.perspective[np.lexsort((rng.random(len(clear.problem)), clear.problem))]
        found = measures(coupled, clear, shuffled)
        assert found["ari_perspective"].value < 0.02 and found["probe_perspective"].value < 0.2
        passed.update(name for name, told in found.items() if name.endswith("perspective") and told.p <= 0.05)
    assert not passed or max(passed.values()) <= 2


def test_data_without_a_perspective_does_not_pass_although_it_has_components() -> None:
    null = make_states(1, apart=0.0)
    encoder = fit_encoder(null.states, null.problem, PCA, seed=0)
    found = measures(encoder, null)
    assert found["ari_perspective"].p > 0.05 and found["ari_perspective"].value < 0.02
    assert found["probe_perspective"].p > 0.05


@pytest.mark.slow
def test_coupling_tightens_a_clear_effect_and_components_beside_it_show_a_weak_one() -> None:
    """The dossier's lesson: coupling de-splits clusters where the signal is clear and can erase a weak one."""
    clear, weak = (make_states(0, problems=150, apart=apart, noise=noise) for apart, noise in ((3, 0.2), (0.5, 0.1)))
    full = EncoderSettings(components=64)
    agreed = {}
    for name, data in (("clear", clear), ("weak", weak)):
        for kind in ("coupled", "pca"):
            encoder = fit_encoder(data.states, data.problem, full.model_copy(update={"kind": kind}), seed=0)
            components = encoder.mixture.assign(encoder.project(data.states, data.problem))
            agreed[name, kind] = adjusted_rand_score(data.perspective, components)
    assert agreed["clear", "coupled"] > max(0.9, agreed["clear", "pca"])
    assert agreed["weak", "pca"] > max(0.5, agreed["weak", "coupled"])


def test_the_same_seed_gives_the_same_encoder_on_any_number_of_threads(clear: States) -> None:
    short = QUICK.model_copy(update={"rounds": 6, "warm_up": 3})
    first = fit_encoder(clear.states, clear.problem, short, seed=4)
    torch.set_num_threads(2)
    again = fit_encoder(clear.states, clear.problem, short, seed=4)
    assert torch.get_num_threads() == 2  # left as it was
    z, same = (encoder.project(clear.states, clear.problem) for encoder in (first, again))
    assert (z == same).all()
    other = fit_encoder(clear.states, clear.problem, short, seed=5)
    assert not np.allclose(z, other.project(clear.states, clear.problem))


def test_an_encoder_is_the_same_after_saving(clear: States, coupled: Encoder, tmp_path: Path) -> None:
    coupled.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert (loaded.project(clear.states, clear.problem) == coupled.project(clear.states, clear.problem)).all()
    z = coupled.project(clear.states, clear.problem)
    assert (loaded.mixture.assign(z) == coupled.mixture.assign(z)).all()
    assert (loaded.likelihood, loaded.because, loaded.settings) == (
        coupled.likelihood,
        coupled.because,
        coupled.settings,
    )
    (tmp_path / "encoder.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="no encoder of format 1 can be read"):
        Encoder.load(tmp_path)


def test_an_encoder_of_another_format_is_refused(coupled: Encoder, tmp_path: Path) -> None:
    coupled.save(tmp_path)
    told = (tmp_path / "encoder.json").read_text(encoding="utf-8")
    (tmp_path / "encoder.json").write_text(told.replace('"format": 1', '"format": 2'), encoding="utf-8")
    with pytest.raises(UserError, match="it has format 2"):
        Encoder.load(tmp_path)


def test_a_student_placed_by_the_specialists_centres_lands_where_its_specialist_is(
    clear: States, coupled: Encoder
) -> None:
    one = clear.perspective == 3
    centres = coupled.centres(clear.states, clear.problem)
    alone = coupled.project(clear.states[one], clear.problem[one], centres)
    np.testing.assert_allclose(alone, coupled.project(clear.states, clear.problem)[one], atol=1e-5)
    assert (coupled.mixture.assign(alone) == np.bincount(coupled.mixture.assign(alone)).argmax()).mean() > 0.8


def test_what_cannot_be_placed_is_refused_in_a_sentence(clear: States, coupled: Encoder) -> None:
    centres = coupled.centres(clear.states, clear.problem)
    with pytest.raises(UserError, match="by no specialist"):
        coupled.project(clear.states[:8], clear.problem[:8] + 1000, centres)
    with pytest.raises(UserError, match="hidden width"):
        coupled.project(clear.states[:, :32], clear.problem)
    broken = clear.states.copy()
    broken[5, 2] = np.inf
    with pytest.raises(UserError, match="1 states are not finite .the first is number 5"):
        fit_encoder(broken, clear.problem, PCA.model_copy(update={"held_out": 0.01}), seed=1)
    with pytest.raises(UserError, match="too few"):
        fit_encoder(clear.states[:16], clear.problem[:16], PCA, seed=0)
    with pytest.raises(UserError, match="nothing to tell apart"):
        fit_encoder(np.ones_like(clear.states), clear.problem, PCA, seed=0)


def test_an_encoder_that_still_learns_says_so(clear: States) -> None:
    short = fit_encoder(clear.states, clear.problem, QUICK.model_copy(update={"rounds": 4, "refit_every": 2}), seed=0)
    assert not short.converged and "raise rounds" in short.because


def test_a_reduction_of_the_same_points_is_not_fitted_again(
    clear: States, coupled: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [Point("m", str(k), str(p), "", "b", "") for k, p in zip(clear.perspective, clear.problem, strict=True)]
    reading = Reading(
        "pca", {str(k): str(k) for k in range(8)}, Stored(clear.states, points), lambda p: p.perspective, {}
    )
    alone = fit_space(reading, number_problems(points), PCA, 0)
    monkeypatch.delattr("mind_distill.latent.encoder.fit_reduction")
    shared = fit_space(reading, number_problems(points), PCA, 0, alone.encoder.reduction)
    assert (shared.z == alone.z).all()


def test_a_model_is_placed_by_one_thread(clear: States, coupled: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    apply = Reduction.apply

    def watched(reduction: Reduction, states: np.ndarray) -> np.ndarray:
        threads.extend(pool["num_threads"] for pool in threadpool_info())
        return apply(reduction, states)

    monkeypatch.setattr(Reduction, "apply", watched)
    with threadpool_limits(2):
        coupled.project(clear.states, clear.problem, coupled.centres(clear.states, clear.problem))
    assert threads and set(threads) == {1}


def test_an_autoencoder_that_diverges_is_told_with_the_setting_to_change(clear: States) -> None:
    with pytest.raises(UserError, match="error is no number with learning_rate 10000; lower it"):
        fit_encoder(clear.states, clear.problem, QUICK.model_copy(update={"learning_rate": 1e4}), seed=0)


def test_too_few_rounds_to_tell_are_no_convergence(clear: States) -> None:
    short = fit_encoder(clear.states, clear.problem, QUICK.model_copy(update={"rounds": 4, "refit_every": 4}), seed=0)
    assert not short.converged
    assert "4 rounds are too few to tell whether the autoencoder's error is level" in short.because


def test_an_error_that_rises_is_told_as_a_change_and_not_as_a_fall(coupled: Encoder) -> None:
    settings = coupled.settings.model_copy(update={"refit_every": 2})
    _, because = _judge(coupled.mixture, [1.0, 1.0, 1.5, 1.5], settings)
    assert "still changed by 50.0% over the last 2 rounds" in because


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        (
            EncoderSettings,
            {"latent": 0, "refit_every": 0, "warm_up": -1, "learning_rate": 0, "held_out": 0.6, "rounds": 0},
        ),
        (
            MixtureSettings,
            {"components": 0, "concentration": 0, "iterations": 0, "regularisation": 0, "active_share": 2},
        ),
        (GeometrySettings, {"draws": 0, "folds": 1, "sample": 0}),
        (MapSettings, {"perplexity": 0}),
    ],
)
def test_settings_that_nothing_can_be_measured_with_are_refused_by_key(
    settings: type[Settings], wrong: dict[str, float]
) -> None:
    for key, value in wrong.items():
        with pytest.raises(UserError, match=f"{key}.*(greater|less) than"):
            settings.resolve({key: value}, "study.yaml")


@pytest.mark.parametrize("width", [40, 1100])  # the whole covariance; a sketch of it
def test_streamed_components_are_those_of_the_whole_matrix(width: int, tmp_path: Path) -> None:
    data = make_states(2, problems=30, width=width)
    order = np.random.default_rng(0).permutation(len(data.states))  # problems do not lie together
    stored = np.memmap(tmp_path / "states", np.float16, "w+", shape=data.states.shape)
    stored[:] = data.states[order]
    problem = data.problem[order]
    found = fit_reduction(stored, problem, np.arange(len(problem)), keep=6, centre=True, seed=0)
    whole = stored.astype(np.float64)
    whole -= np.stack([whole[problem == p].mean(0) for p in problem])
    whole /= whole.std(0)
    most = (np.linalg.svd(whole, compute_uv=False)[:6] ** 2).sum()
    ours = np.linalg.qr(found.basis)[0]
    assert ((whole @ ours) ** 2).sum() > 0.99 * most  # no six directions hold more
    assert found.explained == pytest.approx(most / (whole**2).sum(), rel=0.02)
    reduced = found.apply(stored)
    reduced = subtract(reduced, problem, problem_means(reduced, problem))
    assert abs(reduced.var(0).mean() - 1) < 0.02


def test_pieces_smaller_than_the_data_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_states(2, problems=30, width=20)
    rows = np.flatnonzero(data.problem != 7)
    whole = fit_reduction(data.states, data.problem, rows, keep=5, centre=True, seed=0)
    for size in (3, 16, 20):
        monkeypatch.setattr("mind_distill.latent.reduction.ROWS", size)
        pieces = fit_reduction(data.states, data.problem, rows, keep=5, centre=True, seed=0)
        np.testing.assert_allclose(pieces.apply(data.states), whole.apply(data.states), atol=2e-4)
