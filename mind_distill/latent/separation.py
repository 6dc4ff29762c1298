"""How well labels' points are told apart in z: silhouette, linear probe on held-out problems, distances of centroids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mind_distill.latent.mixture import Floats, Integers

ROWS = 1024  # of the distances, at a time
RIDGE = 1e-3  # of the mean within-label variance, so that narrow directions do not decide


def silhouettes(z: Floats, labellings: Sequence[Integers]) -> Floats:
    """The silhouette of each point [labellings, n] under each labelling; the distances are found once for all of them."""
    z = np.asarray(z, np.float64)
    count = 1 + max(int(labels.max()) for labels in labellings)
    member = np.concatenate([np.eye(count)[labels] for labels in labellings], axis=1)  # [n, labellings * K]
    sizes = member.sum(0).reshape(len(labellings), count)
    square = (z**2).sum(1)
    out = np.empty((len(labellings), len(z)))
    for start in range(0, len(z), ROWS):
        part = z[start : start + ROWS]
        distance = np.sqrt(np.maximum(square[start : start + ROWS, None] - 2 * part @ z.T + square, 0))
        distance[np.arange(len(part)), start + np.arange(len(part))] = 0.0
        sums = (distance @ member).reshape(len(part), len(labellings), count)
        for i, labels in enumerate(labellings):
            out[i, start : start + ROWS] = _silhouettes(sums[:, i], labels[start : start + ROWS], sizes[i])
    return out


def _silhouettes(sums: Floats, own: Integers, sizes: Floats) -> Floats:
    """From the summed distances [m, K] to the points of each label."""
    at = np.arange(len(own))
    inside = sums[at, own] / np.maximum(sizes[own] - 1, 1)
    means = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
    means[at, own] = np.inf
    outside = means.min(1)
    most = np.maximum(inside, outside)
    return np.where((sizes[own] > 1) & (most > 0), (outside - inside) / np.where(most > 0, most, 1), 0.0)


def correct_on_held_out(z: Floats, labellings: Sequence[Integers], fold: Integers) -> Floats:
    """Whether a linear probe names each point's label [labellings, n], fitted on the other folds.

    Linear discriminant analysis: the scatter of all points is found once a fold, only the means depend on the labelling.
    """
    z = np.asarray(z, np.float64)
    out = np.empty((len(labellings), len(z)))
    for number in np.unique(fold):
        test = fold == number
        train = z[~test]
        offset = train.mean(0)
        train, held = train - offset, z[test] - offset
        scatter = train.T @ train
        for i, labels in enumerate(labellings):
            out[i, test] = _discriminate(train, scatter, labels[~test], held) == labels[test]
    return out


def _discriminate(train: Floats, scatter: Floats, labels: Integers, held: Floats) -> Integers:
    """The label that linear discriminant analysis gives to each held point."""
    means, sizes = _means(train, labels)
    there = np.flatnonzero(sizes)
    weight, direction = _discriminant(scatter, means[there], sizes[there], len(train))
    score = held @ direction.T - 0.5 * (means[there] * direction).sum(1) + np.log(weight)
    return np.asarray(there[score.argmax(1)])


def _discriminant(scatter: Floats, means: Floats, sizes: Floats, n: int) -> tuple[Floats, Floats]:
    """Shares of the labels and their means times the inverse of the covariance within labels [K, L]."""
    within = (scatter - (means * sizes[:, None]).T @ means) / max(1, n - len(means))
    within[np.diag_indices_from(within)] += RIDGE * max(float(np.trace(within)) / len(within), 1e-12)
    return sizes / n, np.linalg.solve(within, means.T).T


def _means(z: Floats, labels: Integers) -> tuple[Floats, Floats]:
    """Mean place [K, L] and number [K] of the points of each label."""
    member = np.eye(int(labels.max()) + 1)[labels]
    sizes = member.sum(0)
    return member.T @ z / np.maximum(sizes, 1)[:, None], sizes


def distance_ratio(z: Floats, labels: Integers) -> float:
    """Mean distance between the labels' centroids, beside the root mean square distance of points from their own."""
    z = np.asarray(z, np.float64)
    means, sizes = _means(z, labels)
    there = means[sizes > 0]
    between = np.linalg.norm(there[:, None] - there[None], axis=-1)[np.triu_indices(len(there), 1)]
    within = np.sqrt(((z - means[labels]) ** 2).sum(1).mean())
    return float(between.mean() / max(within, 1e-12))
