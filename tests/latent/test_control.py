"""'Separated' is said only where perspectives lie further apart than seeds do."""

from __future__ import annotations

import numpy as np
import pytest

from mind_distill.errors import UserError
from mind_distill.latent.control import compare_with_control
from mind_distill.latent.geometry import GeometrySettings
from tests.latent.synthetic import make_points

QUICK = GeometrySettings(draws=30, folds=3)


def values(apart: float, seeds_apart: float, seeds: int, seed: int = 0):
    control = compare_with_control(
        make_points(seed, apart), make_points(100 + seed, seeds_apart, models=seeds), QUICK, seed=0
    )
    return {measure.name: measure for measure in control.measures}, control.verdict


def test_perspectives_far_beyond_seeds_are_separated() -> None:
    found, verdict = values(4.0, 0.5, seeds=4)
    assert verdict.holds is True
    assert found["separation_excess"].low > 0 and found["separation_perspective"].p < 0.05


def test_perspectives_that_separate_no_more_than_seeds_are_not_called_separated() -> None:
    """Told apart almost without fault, as adapters always are: the probe alone would have called it a finding."""
    found, verdict = values(3.0, 3.0, seeds=4)
    assert found["pairwise_perspective"].value > 0.9
    assert verdict.holds is not True


def test_models_without_any_difference_are_told_as_not_separated() -> None:
    found, verdict = values(0.0, 0.0, seeds=3)
    assert verdict.holds is False and "not separated at all" in verdict.because
    assert found["separation_perspective"].low < 0 < found["separation_perspective"].high


def test_two_seeds_can_never_confirm() -> None:
    _, verdict = values(4.0, 0.5, seeds=2)
    assert verdict.holds is None and "one pair" in verdict.because


def test_seeds_that_separate_more_refute() -> None:
    _, verdict = values(0.8, 6.0, seeds=5)
    assert verdict.holds is False and "seeds alone" in verdict.because


def test_separation_does_not_depend_on_the_number_of_models_and_is_nought_on_average_without_a_difference() -> None:
    apart = [[values(2.0, 2.0, seeds, seed)[0][f"separation_{of}"].value for of in ("perspective", "control")]
             for seeds in (3, 8) for seed in range(3)]  # fmt: skip
    few, many = np.array(apart)[:3, 1].mean(), np.array(apart)[3:, 1].mean()
    assert abs(few - many) < 0.6
    null = [values(0.0, 0.0, 4, seed)[0]["separation_perspective"].value for seed in range(6)]
    assert min(null) < 0 < max(null)


@pytest.mark.parametrize(
    ("apart", "seeds_apart", "seeds"), [(4, 0.5, 4), (0, 0, 3), (0.8, 6, 5), (4, 0.5, 2), (3, 3, 4)]
)
def test_every_reason_is_a_sentence_that_leaves_the_verdict_to_the_verdict(
    apart: float, seeds_apart: float, seeds: int
) -> None:
    _, verdict = values(apart, seeds_apart, seeds)
    assert verdict.because.endswith("].") and "cannot be told" not in verdict.because


def test_a_model_that_left_some_problems_out_is_compared_on_the_others() -> None:
    study = make_points(0, 4.0)
    some = study.take(np.flatnonzero((study.perspective != 2) | (study.problem % 2 == 0)))
    control = compare_with_control(some, make_points(101, 0.5, models=4), QUICK, seed=0)
    assert control.verdict.holds is True


def test_a_control_of_one_model_is_refused() -> None:
    with pytest.raises(UserError, match="at least two"):
        compare_with_control(make_points(0, 1.0), make_points(1, 1.0, models=1), QUICK, seed=0)


def test_models_without_problems_in_common_are_refused() -> None:
    study = make_points(0, 1.0)
    apart = study.take(np.flatnonzero((study.perspective == 0) == (study.problem < 30)))
    with pytest.raises(UserError, match="problems in common"):
        compare_with_control(apart, make_points(1, 1.0, models=3), QUICK, seed=0)
