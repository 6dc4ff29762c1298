"""What is said of the numbers: nothing is claimed that its control does not allow."""

from __future__ import annotations

import dataclasses

import pytest

from mind_distill.latent.control import Verdict
from mind_distill.latent.findings import clusters, coverage, depends_on_task, not_only_words, table
from mind_distill.latent.geometry import Measure
from mind_distill.latent.inclination import Row


def measure(value: float, spread: float = 0.02, null: float | None = None, p: float | None = None) -> Measure:
    return Measure("m", "M", value, value - spread, value + spread, null, None if null is None else null + 0.02, p)


def row(model: str, cover: float, sharp: float = 0.2, outside: float = 0.1) -> Row:
    one = measure(0.5)
    return Row(
        model,
        "b",
        None,
        40,
        [0.9, 0.1],
        [0.8, 0.0],
        [1.0, 0.2],
        measure(cover),
        measure(sharp),
        measure(outside),
        one,
        one,
        one,
    )


def test_clusters_agree_only_above_chance_and_more_only_above_subjects() -> None:
    high, low = measure(0.6, null=0.0, p=0.01), measure(0.01, null=0.0, p=0.3)
    assert [v.holds for v in clusters({"ari_perspective": high, "ari_subject": low}, {"ari_perspective": high})] == [
        True,
        True,
    ]
    assert [v.holds for v in clusters({"ari_perspective": low, "ari_subject": high}, {"ari_perspective": low})] == [
        False,
        False,
    ]
    above = {"ari_perspective": high, "ari_subject": measure(0.7)}
    assert [v.holds for v in clusters(above, above)] == [True, False]
    assert len(clusters({"ari_perspective": high}, {"ari_perspective": high})) == 1, (
        "one subject is nothing to agree with"
    )


@pytest.mark.parametrize(("control", "holds"), [(None, None), (False, False), (True, True), ("undecided", None)])
def test_more_than_words_needs_the_seed_control_on_the_same_text(control: object, holds: bool | None) -> None:
    probe = {"probe_perspective": measure(0.9, null=0.12, p=0.01)}
    verdict = None if control is None else Verdict("c", None if control == "undecided" else bool(control), "b")
    assert not_only_words(probe, probe, probe, verdict).holds is holds
    chance = {"probe_perspective": measure(0.13, null=0.12, p=0.4)}
    assert not_only_words(probe, probe, chance, Verdict("c", True, "b")).holds is False


def test_coverage_far_from_all_centroids_is_no_coverage() -> None:
    plain = row("plain", 0.3)
    for other, holds in (
        (row("mind", 0.8), True),
        (row("mind", 0.31), None),
        (row("mind", 0.2), False),
        (row("mind", 0.8, sharp=0.8), None),
        (row("mind", 0.8, outside=0.9), None),
    ):
        (found,) = coverage("plain", "mind", [plain, other])
        assert found.holds is holds
    assert "too far from all centroids" in found.because
    elsewhere = dataclasses.replace(row("mind", 0.8), benchmark="other")
    assert coverage("plain", "mind", [plain, elsewhere]) == [], "only the same questions are compared"


def test_the_table_says_each_claim_in_words_and_fits_a_terminal() -> None:
    told = depends_on_task("mind", "benchmark", measure(0.3, null=0.01, p=0.005))
    space = {"title": "Specialists", "points": 80, "active": 9, "converged": False, "because": "raise rounds"}
    names = ("ari_perspective", "probe_perspective")
    space["measures"] = [measure(0.5, null=0.1, p=0.01).to_json() | {"name": name} for name in names]
    verdicts = [told, Verdict("Undecided.", None, "because " * 40), Verdict("Wrong.", False, "x")]
    text = table({"states": space}, [row("mind", 0.8)], ["Formal Symbolic", "Planning"], verdicts)
    assert (
        "yes:            mind leans elsewhere" in text
        and "cannot be told: Undecided." in text
        and "no:             Wrong." in text
    )
    assert "did not converge: raise rounds" in text and "Formal Symbolic 90%" in text
    assert max(map(len, text.splitlines())) <= 140
