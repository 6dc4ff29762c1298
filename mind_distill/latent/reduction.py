"""What comes before the encoder: centring by problem, standardising, principal components; streamed, so that memory stays flat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mind_distill.errors import UserError
from mind_distill.latent.mixture import Floats, Integers

ROWS = 2048  # read at a time
EXACT_WIDTH = 1024  # up to here the whole covariance is taken, beyond it a randomised sketch of it
SKETCH, PASSES = 16, 6  # further directions of the sketch, and readings of the states
SMALLEST = 1e-6  # of the largest variance; a direction below it is rounding


class Centres(NamedTuple):
    """What is subtracted from a point of each problem, in the reduced space: problem numbers [P], rising, and means [P, components]."""

    problems: Integers
    means: Floats


@dataclass(frozen=True)
class Reduction:
    """Standardised principal components: offset and scale [d], basis [d, components], whose mean variance is one."""

    offset: Floats
    scale: Floats
    basis: Floats
    explained: float  # share of the standardised variance that the components hold

    def apply(self, states: Floats) -> Floats:
        """The components [n, components] of states [n, d], not centred by problem."""
        if states.ndim != 2 or states.shape[1] != len(self.offset):
            raise UserError(
                f"The states have the shape {states.shape}; the encoder was fitted on states of width {len(self.offset)}. "
                "Only models of one hidden width can share a map."
            )
        out = np.empty((len(states), self.basis.shape[1]), np.float32)
        weighted = self.basis / self.scale[:, None]
        for start in range(0, len(states), ROWS):
            rows = np.asarray(states[start : start + ROWS], np.float32)
            _refuse_unless_finite(rows, np.arange(start, start + len(rows)))
            out[start : start + len(rows)] = (rows - self.offset) @ weighted
        return out


def problem_means(reduced: Floats, problems: Integers) -> Centres:
    """The mean of each problem over these points."""
    numbers, place, counts = np.unique(problems, return_inverse=True, return_counts=True)
    sums = np.zeros((len(numbers), reduced.shape[1]))
    np.add.at(sums, place, reduced)
    return Centres(numbers, (sums / counts[:, None]).astype(np.float32))


def subtract(reduced: Floats, problems: Integers, centres: Centres) -> Floats:
    """The points less their problems' means; a problem without one is refused."""
    place = np.minimum(np.searchsorted(centres.problems, problems), len(centres.problems) - 1)
    strange = np.unique(problems[centres.problems[place] != problems])
    if len(strange):
        raise UserError(
            f"{len(strange)} problems were read by this model but by no specialist (the first has number {strange[0]}); "
            "let the specialists answer the same problems, so that each problem's mean can be removed."
        )
    return np.asarray(reduced - centres.means[place])


def fit_reduction(states: Floats, problems: Integers, rows: Integers, keep: int, centre: bool, seed: int) -> Reduction:
    """Principal components of these rows of states [n, d], centred by problem first; deterministic under the seed.

    It reads the states a few times in pieces of whole problems, and holds one piece and a few matrices as wide as the states.
    """
    pieces = _Pieces(states, problems, rows, centre)
    offset = pieces.mean()
    variance = sum((piece.astype(np.float64) ** 2).sum(0) for piece in pieces.centred(offset)) / len(rows)
    if not variance.max() > 0:
        raise UserError(
            "All states of each problem are equal, so there is nothing to tell apart; were the models trained?"
        )
    scale = np.sqrt(np.maximum(variance, SMALLEST * variance.max())).astype(np.float32)
    free = len(rows) - (len(np.unique(problems[rows])) if centre else 1)
    keep = min(keep, states.shape[1], free)
    values, basis = _directions(pieces, offset, scale, keep, seed)
    values, basis = values[:keep], basis[:, :keep]
    whole = values > SMALLEST * values[0]
    values, basis = values[whole] / len(rows), basis[:, whole]
    signs = np.sign(basis[np.abs(basis).argmax(0), np.arange(basis.shape[1])])
    explained = float(values.sum() / (variance / scale.astype(np.float64) ** 2).sum())
    return Reduction(offset, scale, (basis * signs / np.sqrt(values.mean())).astype(np.float32), explained)


class _Pieces:
    """States in pieces of about ROWS rows; centred, a piece holds whole problems."""

    def __init__(self, states: Floats, problems: Integers, rows: Integers, centre: bool) -> None:
        self.states, self.rows, self.centre = states, rows, centre
        self.order = rows[np.argsort(problems[rows], kind="stable")] if centre else rows
        ordered = problems[self.order]
        new = np.r_[True, ordered[1:] != ordered[:-1]] if centre else np.ones(len(rows), bool)
        self.bounds = np.r_[np.flatnonzero(new), len(rows)]

    def mean(self) -> Floats:
        """Of all states; what is not finite is refused here, before anything is fitted."""
        total = np.zeros(self.states.shape[1])
        for start in range(0, len(self.rows), ROWS):
            numbers = self.rows[start : start + ROWS]
            values = np.asarray(self.states[numbers], np.float32)
            _refuse_unless_finite(values, numbers)
            total += values.sum(0, dtype=np.float64)
        return np.asarray(total / len(self.rows), np.float32)

    def centred(self, offset: Floats) -> Iterator[Floats]:
        """Each piece less the offset and less its problems' means."""
        at, last = 0, len(self.bounds) - 1
        while at < last:
            after = int(np.searchsorted(self.bounds, self.bounds[at] + ROWS, side="right")) - 1
            after = max(at + 1, after)  # a problem with more rows than a piece is a piece
            start, stop = self.bounds[at], self.bounds[after]
            rows = np.asarray(self.states[self.order[start:stop]], np.float32) - offset
            if self.centre:
                counts = np.diff(self.bounds[at : after + 1])
                means = np.add.reduceat(rows, self.bounds[at:after] - start) / counts[:, None].astype(np.float32)
                rows -= np.repeat(means, counts, axis=0)
            yield rows
            at = after


def _directions(pieces: _Pieces, offset: Floats, scale: Floats, keep: int, seed: int) -> tuple[Floats, Floats]:
    """Eigenvalues, falling, and eigenvectors of the scatter of the standardised states."""
    width = len(offset)
    if width <= EXACT_WIDTH:
        scatter = np.zeros((width, width))
        for piece in pieces.centred(offset):
            piece /= scale
            scatter += piece.T @ piece
        values, vectors = np.linalg.eigh(scatter)
        return values[::-1], vectors[:, ::-1]
    rng = np.random.default_rng(seed)
    sketch = rng.standard_normal((width, min(width, keep + SKETCH)))
    for _ in range(PASSES):
        base = np.linalg.qr(sketch)[0]
        narrow = base.astype(np.float32)
        sketch = np.zeros_like(base)
        for piece in pieces.centred(offset):
            piece /= scale
            sketch += piece.T @ (piece @ narrow)
    values, vectors = np.linalg.eigh(base.T @ sketch)
    return values[::-1], base @ vectors[:, ::-1]


def _refuse_unless_finite(rows: Floats, numbers: Integers) -> None:
    bad = ~np.isfinite(rows).all(1)
    if bad.any():
        raise UserError(
            f"{int(bad.sum())} states are not finite (the first is number {int(numbers[bad][0])}); the model that wrote them "
            "overflowed in half precision or is broken: read it again in float32 or leave it out."
        )
