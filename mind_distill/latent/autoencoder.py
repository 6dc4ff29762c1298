"""The variational autoencoder whose prior is the mixture: trained and refitted in turn, as DIVA does (Bing et al. 2022)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mind_distill.errors import UserError
from mind_distill.latent.mixture import ROWS, Floats, Mixture, fit_mixture

if TYPE_CHECKING:
    from mind_distill.latent.encoder import EncoderSettings

FEWEST, MOST = 16, 128  # batches of a round: few points are passed over several times, of many only a part
FITTED = 10_000  # points at most of a fit of the mixture on the way; the final one takes all
VARIANCE_FLOOR = 1e-3  # of a component; a narrower one would draw its points into a single place


class _Autoencoder(nn.Module):
    """Two hidden layers each way; the reading half gives mean and log variance of z."""

    def __init__(self, width: int, hidden: int, latent: int, generator: torch.Generator) -> None:
        super().__init__()
        self.read = _layers([width, hidden, hidden, 2 * latent], generator)
        self.write = _layers([latent, hidden, hidden, width], generator)

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.read(x).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-10, 10)
        return self.write(mean + (0.5 * log_variance).exp() * noise), mean, log_variance


def _layers(widths: list[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers with GELU between them, drawn from the generator alone."""
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(itertools.pairwise(widths)):
        linear = nn.utils.skip_init(nn.Linear, before, after)  # type: ignore[no-untyped-call]
        for parameter in linear.parameters():
            nn.init.uniform_(parameter, -(before**-0.5), before**-0.5, generator=generator)
        layers += [nn.GELU(), linear] if i else [linear]
    return nn.Sequential(*layers)


def train(x: Floats, settings: EncoderSettings, seed: int) -> tuple[dict[str, Floats], list[float]]:
    """The reading half's layers and the mean squared error of each round, for points x [n, components]; a UserError if it diverges."""
    generator = torch.Generator().manual_seed(seed)
    model = _Autoencoder(x.shape[1], settings.hidden, settings.latent, generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    points, losses, prior = torch.from_numpy(np.ascontiguousarray(x)), [], _Prior(_standard(settings.latent))
    draws = _batches(len(x), settings.batch, generator)
    steps = min(MOST, max(FEWEST, -(-len(x) // settings.batch)))
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small matrices; and the sums come out alike on any machine's number of cores
    try:
        for round_ in range(settings.rounds):
            since = round_ - settings.warm_up
            if since >= 0 and since % settings.refit_every == 0:
                prior = _Prior(_refit(model, points, settings, seed))
            total = 0.0
            for _ in range(steps):
                rows = points[next(draws)]
                noise = torch.randn(len(rows), settings.latent, generator=generator)
                again, mean, log_variance = model(rows, noise)
                error = (again - rows).square().mean()
                loss = error + settings.kl * prior.divergence(mean, log_variance)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += float(error.detach())
            losses.append(total / steps)
            if not isfinite(losses[-1]):
                raise UserError(
                    f"encoder: the autoencoder's error is no number with learning_rate {settings.learning_rate:g}; lower it."
                )
    finally:
        torch.set_num_threads(before)
    return {name: value.detach().numpy().copy() for name, value in model.read.state_dict().items()}, losses


def encode(layers: dict[str, Floats], x: Floats) -> Floats:
    """The mean of z [n, L] of points x [n, components]."""
    return np.concatenate([_encode(layers, x[start : start + ROWS]) for start in range(0, max(1, len(x)), ROWS)])


def _encode(layers: dict[str, Floats], x: Floats) -> Floats:
    numbers = sorted({int(name.split(".")[0]) for name in layers})
    for number in numbers:
        if number:
            x = nn.functional.gelu(torch.from_numpy(x)).numpy()
        x = x @ layers[f"{number}.weight"].T + layers[f"{number}.bias"]
    return np.asarray(x[:, : x.shape[1] // 2], np.float32)


class _Prior:
    """The mixture as tensors, held constant between its fits."""

    def __init__(self, mixture: Mixture) -> None:
        variance = np.maximum(mixture.variances, VARIANCE_FLOOR)
        self.mean, self.precision, self.log_variance, self.log_weight = (
            torch.from_numpy(np.asarray(a, np.float32))
            for a in (mixture.means, 1 / variance, np.log(variance), np.log(np.maximum(mixture.weights, 1e-30)))
        )

    def divergence(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """sum_k r_k KL(N(mean, variance) || component k), mean over the points; r from the means, without gradient."""
        distance = (  # [B, C]: squared, in units of each component's variance
            mean.square() @ self.precision.T
            - 2 * mean @ (self.mean * self.precision).T
            + (self.mean.square() * self.precision).sum(1)
        )
        constant = self.log_variance.sum(1)
        with torch.no_grad():
            share = (self.log_weight - 0.5 * (distance + constant)).softmax(1)
        inside = log_variance.exp() @ self.precision.T - log_variance.sum(1, keepdim=True) - mean.shape[1]
        return (share * 0.5 * (distance + constant + inside)).sum(1).mean()


def _standard(latent: int) -> Mixture:
    return Mixture(np.ones(1), np.zeros((1, latent)), np.ones((1, latent)), True, 0)


def _refit(model: _Autoencoder, points: Tensor, settings: EncoderSettings, seed: int) -> Mixture:
    """The mixture of the means of z as the autoencoder gives them now."""
    some = points[:: max(1, -(-len(points) // FITTED))]
    with torch.no_grad():
        mean = model.read(some)[:, : settings.latent]
    return fit_mixture(mean.numpy(), settings.mixture, seed)


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Numbers of the points of each batch, without end; each passing over them is in a new order."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < min(size, n):
            waiting = torch.cat([waiting, torch.randperm(n, generator=generator)])
        yield waiting[: min(size, n)]
        waiting = waiting[min(size, n) :]
