"""How far two groupings of the same points agree, from their table of counts alone; fast enough for hundreds of permutations."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from mind_distill.latent.mixture import Floats, Integers


class Agreement(NamedTuple):
    """Adjusted Rand index, normalised mutual information (the V-measure) and adjusted mutual information."""

    ari: float
    nmi: float
    ami: float


def agreement(one: Integers, other: Integers) -> Agreement:
    """Of two groupings [n]; 1 where they are the same, about 0 (`ari`, `ami`) where they are independent."""
    table = contingency(one, other)
    rows, columns, n = table.sum(1), table.sum(0), table.sum()
    shared, in_rows, in_columns = (float((a * (a - 1)).sum()) / 2 for a in (table, rows, columns))
    expected = in_rows * in_columns / (n * (n - 1) / 2)
    most = (in_rows + in_columns) / 2
    information = _information(table)
    entropy = (_entropy(rows) + _entropy(columns)) / 2
    if entropy == 0:  # both are one group
        return Agreement(1.0, 1.0, 1.0)
    chance = _expected_information(tuple(sorted(rows.tolist())), tuple(sorted(columns.tolist())))
    return Agreement(
        (shared - expected) / (most - expected) if most != expected else 1.0,
        information / entropy,
        (information - chance) / (entropy - chance) if abs(entropy - chance) > 1e-12 else 0.0,
    )


def contingency(one: Integers, other: Integers) -> Integers:
    """How many points are in each pair of groups; empty groups are left out."""
    rows, columns = int(one.max()) + 1, int(other.max()) + 1
    table = np.bincount(one * columns + other, minlength=rows * columns).reshape(rows, columns)
    return table[table.any(1)][:, table.any(0)]


def _information(table: Integers) -> float:
    share = table / table.sum()
    independent = share.sum(1, keepdims=True) * share.sum(0, keepdims=True)
    some = share > 0
    return max(0.0, float((share[some] * np.log(share[some] / independent[some])).sum()))


def _entropy(counts: Integers) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum()) if len(share) > 1 else 0.0


@lru_cache(maxsize=1024)  # permutations share their margins
def _expected_information(rows: tuple[int, ...], columns: tuple[int, ...]) -> float:
    """Mutual information of independent groupings with these sizes (Vinh, Epps and Bailey 2010, equation 24a)."""
    n = sum(rows)
    ways = _log_factorials(n)
    column = np.asarray(columns)
    total = 0.0
    for size in rows:
        both = np.arange(1, min(size, int(column.max())) + 1)[:, None]  # [m, 1]
        possible = (both >= size + column - n) & (both <= column)
        rest = [np.maximum(a, 0) for a in (size - both, column - both, n - size - column + both)]
        log_chance = (
            ways[size] + ways[column] + ways[n - size] + ways[n - column] - ways[n]
            - ways[both] - ways[rest[0]] - ways[rest[1]] - ways[rest[2]]
        )  # fmt: skip
        term = both / n * np.log(n * both / (size * column)) * np.exp(log_chance)
        total += float(term[possible].sum())
    return total


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
