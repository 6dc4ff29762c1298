"""MetaNet as a probe: planted preferences are called what they are, and what cannot be told is said to be so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mind_distill.corpus.perspectives import STANDARD
from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.latent.preference import Preference, _silent, examine, write_preferences
from mind_distill.latent.retraining import Retraining
from mind_distill.latent.trace import read_trace
from mind_distill.pipeline import train
from mind_distill.terminal import Quiet
from tests.conftest import make_lesson
from tests.latent.worlds import METHOD, TAU, K, effects, write_world
from tests.report.toy_run import write_lines
from tests.training.toys import recipe

RARELY = np.arange(K) % 2 == 1  # of the paths, those that are read at the first visit only

BASE = np.array([-0.4, 0.1, -0.2, 0.3, 0.2, 0.3, -0.4, 0.1])
UNIFORM = {"name": "uniform"}
pytestmark = pytest.mark.usefixtures("hash_encoder")


def words(found: Preference) -> dict[str, str]:
    return {answer.question.rsplit(" ", 1)[-1]: answer.answer for answer in found.answers}


def test_a_preference_of_the_students_own_is_called_intrinsic(tmp_path: Path) -> None:
    subjects = effects(1, 0.3)
    run = write_world(tmp_path / "mind", BASE, subjects)
    beside = write_world(tmp_path / "uniform", BASE, subjects, UNIFORM, seed=5)
    found = examine(run, beside, 0)
    assert words(found) == {"thinking": "intrinsic", "subject": "intrinsic", "level": "cannot be told"}
    kept = {claim.by: claim.kept for claim in found.claims}
    for by in (None, "subject"):
        assert kept[by] is not None
        assert kept[by].p == 0.05
        assert kept[by].own > 2 * kept[by].shuffled
    assert found.replay is not None
    assert found.replay.scores > 0.99
    first, second = (write_preferences(folder, [found]).read_bytes() for folder in (tmp_path, tmp_path))
    assert first == second
    assert json.loads(first)["runs"][0]["answers"][0]["answer"] == "intrinsic"


@pytest.mark.slow
def test_a_preference_that_the_student_alone_does_not_share_is_called_artefact(tmp_path: Path) -> None:
    run = write_world(tmp_path / "mind", BASE, visits=1, count=12)
    beside = write_world(tmp_path / "uniform", -BASE, None, UNIFORM, visits=1, count=12)
    answer = examine(run, beside, 0).answers[0]
    assert answer.answer == "artefact"
    assert "but another one" in answer.because


def test_a_metanet_that_hears_nothing_keeps_its_preference_and_is_called_artefact(tmp_path: Path) -> None:
    deaf = METHOD | {"warm_up": {"epochs": 0}, "meta_learning_rate": 1e-12}
    run = write_world(tmp_path / "mind", BASE, None, deaf)
    beside = write_world(tmp_path / "uniform", BASE, None, UNIFORM)
    found = examine(run, beside, 0)
    assert found.answers[0].answer == "artefact"
    assert "keeps it when the student's feedback is shuffled" in found.answers[0].because


def test_without_a_uniform_run_and_retraining_it_cannot_be_told(tmp_path: Path) -> None:
    found = examine(write_world(tmp_path / "mind", BASE, visits=1, count=12), None, 0, shuffles=0)
    assert words(found)["thinking"] == "cannot be told"
    assert "not trained again" in found.answers[0].because
    assert any("Without a run of method uniform" in note for note in found.notes)
    assert found.replay is None


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path) -> None:
    run = write_world(tmp_path / "mind", BASE, visits=2, count=12)
    assert examine(run, None, 3, shuffles=2) == examine(run, None, 3, shuffles=2)


def test_weights_by_subject_are_tested_in_each_third_of_the_training(tmp_path: Path) -> None:
    found = examine(write_world(tmp_path / "mind", BASE, effects(1, 0.3)), None, 0, shuffles=0)
    phases = [group.phase for group in found.groups if group.by == "subject"]
    assert phases == ["all", "first third", "second third", "last third"]
    group = found.groups[0]
    assert (group.names, group.counts) == (["algebra", "geometry", "number theory"], [8, 8, 8])
    assert group.p < 0.01
    assert np.allclose(np.sum(group.cells, axis=1), 1, atol=1e-5)


def test_a_weight_that_makes_itself_true_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    run, beside = (write_world(tmp_path / m["name"], BASE, None, m, seed=s) for s, m in ((0, METHOD), (5, UNIFORM)))
    rows = [json.loads(line) for line in (run / "visits.jsonl").read_text().splitlines()]
    seen: dict[str, int] = {}
    for row in rows:
        seen[row["id"]] = seen.get(row["id"], 0) + 1
        row["nll"] = [n - 0.5 * (seen[row["id"]] - 1) * a for n, a in zip(row["nll"], row["alpha"], strict=True)]
    before = examine(run, beside, 0, shuffles=0).reinforcement
    write_lines(run / "visits.jsonl", rows)
    after = examine(run, beside, 0, shuffles=0).reinforcement
    assert before is not None
    assert after is not None
    assert before.difference.low < 0 < before.difference.high
    assert after.difference.low > 0.7


def test_paths_read_once_do_not_weaken_what_the_others_tell_of_a_weight_that_makes_itself_true(tmp_path: Path) -> None:
    run, beside = (
        write_world(tmp_path / m["name"], BASE, None, m, noise=0, seed=s) for s, m in ((0, METHOD), (5, UNIFORM))
    )
    for folder in (run, beside):
        rows = [json.loads(line) for line in (folder / "visits.jsonl").read_text().splitlines()]
        first: dict[str, Any] = {}
        for row in rows:
            known = first.setdefault(row["id"], row)
            if folder == run:
                row["alpha"] = known["alpha"]
            if row is not known:
                row["nll"] = [n - (folder == run) * a for n, a in zip(known["nll"], row["alpha"], strict=True)]
                row["ran"] = (~RARELY).tolist()
        write_lines(folder / "visits.jsonl", rows)
    found = examine(run, beside, 0, shuffles=0).reinforcement
    assert found is not None
    assert (found.mind, found.uniform) == pytest.approx((1, 0))


def test_the_replay_repeats_a_real_training(tmp_path: Path, toy_folder: Path) -> None:
    corpus = Corpus([make_lesson(n) for n in range(1, 11)], STANDARD, "ten")
    corpus.save(tmp_path / "ten")
    values = recipe(toy_folder, epochs=2, problems_per_step=3, save_every=100)
    values["corpus"] = {"source": str(tmp_path / "ten")}
    values["method"] |= {"lambda": 0, "meta_learning_rate": 1e-3}
    train(values, tmp_path / "run", Quiet())
    found = examine(tmp_path / "run", None, 0, shuffles=1)
    assert found.replay is not None
    assert found.replay.scores > 0.95
    assert found.visits == 20
    assert not any("could not be checked" in note for note in found.notes)


def test_a_retrained_metanet_with_dropout_scores_without_it_as_the_run_did(tmp_path: Path) -> None:
    still = METHOD | {"warm_up": {"epochs": 0}, "meta_learning_rate": 1e-12}
    still["metanet"] = METHOD["metanet"] | {"dropout": 0.5}
    trace = read_trace(write_world(tmp_path / "mind", BASE, None, still, count=12))
    scores, _ = Retraining(trace, TAU, _silent).alpha("none", 0)
    _, first = np.unique(trace.problem, return_index=True)
    np.testing.assert_allclose(scores, scores[first][trace.problem], atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": UNIFORM}, "examined in a run of method mind"),
        ({"method": METHOD | {"weights": "instant"}}, "it has no MetaNet"),
        ({"corpus": {}}, "names no corpus"),
    ],
)
def test_a_run_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    run = write_world(tmp_path / "mind", BASE, visits=1, count=8)
    values = read_trace(run).settings | changes
    (run / "settings.yaml").write_text(json.dumps(values))
    with pytest.raises(UserError, match=message):
        examine(run, None, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"nll": [1.0] * 3}, r"visit 2: 'nll' must hold 8 numbers"),
        ({"alpha": [None] * K}, r"visit 2: 'alpha' must hold 8 numbers"),
        ({"id": "gone"}, "no longer holds it"),
    ],
)
def test_visits_that_do_not_fit_the_corpus_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    run = write_world(tmp_path / "mind", BASE, visits=1, count=8)
    rows = [json.loads(line) for line in (run / "visits.jsonl").read_text().splitlines()]
    rows[1] |= row
    write_lines(run / "visits.jsonl", rows)
    with pytest.raises(UserError, match=message):
        examine(run, None, 0)


def test_too_little_to_compare_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    run = write_world(tmp_path / "mind", BASE, visits=1, count=8)
    few = write_world(tmp_path / "few", BASE, None, UNIFORM, visits=1, count=8)
    other = write_world(tmp_path / "other", BASE, None, METHOD, visits=1, count=8)
    with pytest.raises(UserError, match="is a run of method uniform"):
        examine(run, other, 0)
    lines = (few / "visits.jsonl").read_text().splitlines()
    (few / "visits.jsonl").write_text("\n".join(lines[:5]) + "\n")
    with pytest.raises(UserError, match="5 problems were visited; at least 8"):
        examine(run, few, 0)
    settings = read_trace(other).settings | {"method": UNIFORM, "student": "another"}
    (other / "settings.yaml").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="student is 'another', but 'toy'"):
        examine(run, other, 0)
    (few / "visits.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no visit"):
        examine(few, None, 0)
