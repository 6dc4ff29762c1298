"""The store of states: what was killed goes on and ends with the same bytes, and what changed is made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mind_distill.errors import UserError
from mind_distill.latent.states import Point, Store, read_states

SIZES = [2, 3, 1]


def point(model: str, n: int) -> Point:
    return Point(model, "", f"p{n}", "algebra", "toy", f"text \u00e9 {n}")


def fill(folder: Path, models: dict[str, str], die_at: int | None = None, pool: str = "mean") -> list[str]:
    """Write the models' segments; die after so many batches. Returns the models that were read."""
    store, read, done = Store(folder, "own", pool), [], 0
    for m, (model, fingerprint) in enumerate(models.items()):
        if store.holds(model, fingerprint):
            continue
        read.append(model)
        rows = np.arange(sum(SIZES) * 4, dtype=np.float16).reshape(-1, 4) + np.float16(100 * m)
        kept = store.begin(model, fingerprint, 4, SIZES)
        for b in range(kept, len(SIZES)):
            if done == die_at:
                return read
            start = sum(SIZES[:b])
            batch = slice(start, start + SIZES[b])
            store.add(rows[batch], [point(model, n) for n in range(batch.start, batch.stop)])
            done += 1
        store.end(sum(SIZES))
    store.close()
    return read


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("torn", [0, 3])
@pytest.mark.parametrize("die_at", range(6))
def test_a_killed_reading_goes_on_and_ends_byte_for_byte_the_same(tmp_path: Path, die_at: int, torn: int) -> None:
    models = {"specialist:a": "1", "mind": "2"}
    fill(tmp_path / "whole", models)
    fill(tmp_path / "cut", models, die_at)
    with (tmp_path / "cut/own.f16").open("ab") as raw, (tmp_path / "cut/own.jsonl").open("ab") as index:
        raw.write(b"\0" * torn)  # what a crash leaves of a batch
        index.write(b'{"model": "sp'[: 4 * torn])
    with pytest.raises(UserError, match="--resume"):
        read_states(tmp_path / "cut", "own")
    fill(tmp_path / "cut", models)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_what_is_stored_is_read_back_mapped_and_by_model(tmp_path: Path) -> None:
    fill(tmp_path, {"a": "1", "b": "1", "c": "1"})
    states = read_states(tmp_path, "own")
    assert isinstance(states.rows, np.memmap) and states.rows.dtype == np.float16 and states.rows.shape == (18, 4)
    side_by_side = states.of(["b", "c"])
    assert isinstance(side_by_side.rows, np.memmap) and np.shares_memory(side_by_side.rows, states.rows)
    assert [p.model for p in states.of(["a", "c"]).points] == ["a"] * 6 + ["c"] * 6
    assert states.of(["a", "c"]).rows[6, 0] == 200 and states.points[0].text == "text \u00e9 0"


def test_only_models_that_are_new_or_changed_and_those_behind_them_are_read_again(tmp_path: Path) -> None:
    assert fill(tmp_path, {"a": "1", "b": "1"}) == ["a", "b"]
    assert fill(tmp_path, {"a": "1", "b": "1"}) == []
    assert fill(tmp_path, {"a": "1", "b": "1", "c": "1"}) == ["c"]
    assert fill(tmp_path, {"a": "1", "b": "2", "c": "1"}) == ["b", "c"]
    assert fill(tmp_path, {"a": "1"}) == [] and len(read_states(tmp_path, "own").points) == 6
    assert fill(tmp_path, {"a": "1"}, pool="last") == ["a"], "states pooled otherwise are other states"


def test_a_store_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no stored states 'own'"):
        read_states(tmp_path, "own")
    fill(tmp_path, {"a": "1"})
    raw = tmp_path / "own.f16"
    raw.write_bytes(raw.read_bytes()[:-2])
    with pytest.raises(UserError, match="its size does not fit"):
        read_states(tmp_path, "own")
