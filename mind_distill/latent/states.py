"""The store of hidden states: fp16 rows in one raw file and a line a row beside it, written batch by batch.

`NAME.f16` holds the rows [n, d] of one model after the other, `NAME.jsonl` what each row is, `NAME.json` the width and the
models' segments. A killed reading goes on at the first batch that is not whole and ends with the same bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mind_distill.errors import UserError
from mind_distill.runs import cannot_write, publish

FORMAT = 1
BYTES = np.dtype(np.float16).itemsize


@dataclass(frozen=True)
class Point:
    """What one row of states is: one rationale, or one step of it, read by one model."""

    model: str
    perspective: str  # the specialist's; "" for another model
    id: str
    subject: str
    benchmark: str
    text: str
    step: int = 0
    question: str = ""


class States(NamedTuple):
    """A store as it is read: rows [n, d] that stay on disk, and what each of them is."""

    rows: np.ndarray
    points: list[Point]

    def of(self, models: Sequence[str]) -> States:
        """The rows of these models; a view where they stand side by side, so that nothing is copied."""
        wanted = set(models)
        places = [i for i, point in enumerate(self.points) if point.model in wanted]
        chosen = [self.points[i] for i in places]
        if places and places[-1] - places[0] + 1 == len(places):
            return States(self.rows[places[0] : places[-1] + 1], chosen)
        return States(self.rows[places], chosen)


class Store:
    """A store being written. Segments are opened in a fixed order; one that differs from what is there replaces it and
    everything behind it."""

    def __init__(self, folder: Path, name: str, pool: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.raw, self.index, self.head = (folder / f"{name}.{ending}" for ending in ("f16", "jsonl", "json"))
        self._opened = 0
        self._header: dict[str, Any] = {"format": FORMAT, "dtype": "float16", "width": 0, "pool": pool, "segments": []}
        if self.head.is_file():
            before = json.loads(self.head.read_text(encoding="utf-8"))
            if before["format"] == FORMAT and before["pool"] == pool:
                self._header = before

    @property
    def segments(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._header["segments"]
        return found

    def holds(self, model: str, fingerprint: str) -> bool:
        """Whether the next segment is there, whole and made of the same; it counts as opened then."""
        if not self._same(model, fingerprint) or not self.segments[self._opened]["finished"]:
            return False
        self._opened += 1
        return True

    def begin(self, model: str, fingerprint: str, width: int, batches: Sequence[int]) -> int:
        """Open the next segment, of so many rows a batch; returns how many batches of it are there already."""
        if self._header["width"] not in (0, width):
            self._drop(0)
        self._header["width"] = width
        if not self._same(model, fingerprint):
            self._drop(self._opened)
            self.segments.append({"model": model, "fingerprint": fingerprint, "points": 0, "finished": False})
        start = sum(segment["points"] for segment in self.segments[: self._opened])
        kept, whole = 0, self._whole() - start
        while kept < len(batches) and sum(batches[: kept + 1]) <= whole:
            kept += 1
        self._cut(start + sum(batches[:kept]))
        self._publish()
        return kept

    def add(self, rows: np.ndarray, points: Sequence[Point]) -> None:
        """One batch: the rows [n, d] first, then their lines, so that a line tells of a row that is there."""
        assert len(rows) == len(points) and rows.dtype == np.float16
        lines = "".join(json.dumps(asdict(point), ensure_ascii=True) + "\n" for point in points)
        for file, content in ((self.raw, np.ascontiguousarray(rows).tobytes()), (self.index, lines.encode())):
            try:
                with file.open("ab") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            except OSError as problem:
                raise cannot_write(file, problem) from None

    def end(self, points: int) -> None:
        """The open segment is whole."""
        self.segments[self._opened] |= {"points": points, "finished": True}
        self._opened += 1
        self._publish()

    def close(self) -> None:
        """Forget what lies behind the last segment that was opened: models that the study no longer names."""
        if len(self.segments) > self._opened:
            self._drop(self._opened)
            self._cut(sum(segment["points"] for segment in self.segments))
            self._publish()

    def _same(self, model: str, fingerprint: str) -> bool:
        if self._opened >= len(self.segments):
            return False
        segment = self.segments[self._opened]
        return (segment["model"], segment["fingerprint"]) == (model, fingerprint)

    def _drop(self, place: int) -> None:
        del self.segments[place:]

    def _whole(self) -> int:
        """Rows that are whole in both files."""
        size = self.raw.stat().st_size if self.raw.is_file() else 0
        lines = self.index.read_bytes().count(b"\n") if self.index.is_file() else 0
        return min(size // (BYTES * int(self._header["width"])), lines)

    def _cut(self, rows: int) -> None:
        self.raw.touch()
        self.index.touch()
        os.truncate(self.raw, rows * BYTES * self._header["width"])
        size = 0
        with self.index.open("rb") as stream:
            for _ in range(rows):
                size += len(stream.readline())
        os.truncate(self.index, size)

    def _publish(self) -> None:
        publish(self.head, json.dumps(self._header, indent=1) + "\n")


def read_states(folder: Path, name: str) -> States:
    """A finished store; the rows are mapped, not loaded. A UserError if it is not there or not whole."""
    head = folder / f"{name}.json"
    if not head.is_file():
        raise UserError(f"{folder} holds no stored states '{name}'. Run `mind latent` without --redo first.")
    header = json.loads(head.read_text(encoding="utf-8"))
    open_ = [segment["model"] for segment in header["segments"] if not segment["finished"]]
    count = sum(segment["points"] for segment in header["segments"])
    if open_ or not count:
        raise UserError(
            f"{folder}: the states of {', '.join(open_) or 'every model'} are not whole. Run with --resume."
        )
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    raw = folder / f"{name}.f16"
    if len(lines) != count or raw.stat().st_size != count * header["width"] * BYTES:
        raise UserError(f"{raw}: its size does not fit {head.name}. Delete the folder {folder} and run with --resume.")
    rows = np.memmap(raw, dtype=np.float16, mode="r", shape=(count, header["width"]))
    return States(rows, [Point(**json.loads(line)) for line in lines])
