"""Section 3.2: an encoder of states into a low-dimensional z, trained together with the mixture that governs it. It sees no labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from mind_distill.config import Settings
from mind_distill.errors import UserError
from mind_distill.latent.mixture import Floats, Integers, Likelihood, Mixture, MixtureSettings, fit_mixture, likelihood
from mind_distill.latent.reduction import Centres, Reduction, fit_reduction, problem_means, subtract
from mind_distill.runs import publish

FORMAT = 1
PLATEAU = 0.03  # share by which the error may still change between the last two fits of the mixture


class EncoderSettings(Settings):
    """The encoder; the paper gives neither its kind nor its sizes, so these are the tested ones (PAPER.md)."""

    kind: Literal["coupled", "pca"] = "coupled"
    """`coupled`: a variational autoencoder and the mixture in turn. `pca`: the first principal components, then the mixture."""
    centre: bool = True
    """Remove each problem's mean state first; without it the clusters are subjects."""
    components: int = Field(256, ge=1)
    """Principal components that the autoencoder reads; at most so many."""
    latent: int = Field(16, ge=1)
    """Width of z."""
    hidden: int = Field(256, ge=1)
    """Width of the autoencoder's two hidden layers."""
    rounds: int = Field(60, ge=1)
    """Of training: a round passes over the points once, but takes at least 16 and at most 128 batches."""
    warm_up: int = Field(20, ge=0)
    """Rounds with one standard Gaussian as the prior, before the mixture is first fitted."""
    refit_every: int = Field(5, ge=1)
    """Rounds between fits of the mixture."""
    batch: int = Field(128, ge=1)
    """Points of a step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of Adam."""
    kl: float = Field(0.005, ge=0)
    """Weight of the divergence from the mixture beside the squared error of a dimension; ten times it makes all points one."""
    held_out: float = Field(0.1, gt=0, le=0.5)
    """Share of the problems that neither encoder nor mixture is fitted on; they give the held-out likelihood."""
    mixture: MixtureSettings = MixtureSettings()
    """The mixture's own settings."""


@dataclass(frozen=True)
class Encoder:
    """States to z. `mixture` is the final one; `converged` and `because` say whether both may be relied upon."""

    settings: EncoderSettings
    reduction: Reduction
    layers: dict[str, Floats]  # of the autoencoder's reading half; none for `pca`
    mixture: Mixture
    likelihood: Likelihood
    losses: list[float]  # a number a round
    converged: bool
    because: str

    def centres(self, states: Floats, problems: Integers) -> Centres:
        """The mean of each problem over these states (the specialists'), for `project` of other models on the same problems."""
        with threadpool_limits(1):  # as when it was fitted
            return problem_means(self.reduction.apply(states), problems)

    def project(self, states: Floats, problems: Integers, centres: Centres | None = None) -> Floats:
        """z [n, L]; without `centres` each problem's mean over these very states is subtracted."""
        with threadpool_limits(1):
            reduced = self.reduction.apply(states)
            if self.settings.centre:
                reduced = subtract(reduced, problems, centres or problem_means(reduced, problems))
            return self._encode(reduced)

    def _encode(self, reduced: Floats) -> Floats:
        if not self.layers:
            return reduced[:, : self.settings.latent]
        from mind_distill.latent.autoencoder import encode

        return encode(self.layers, reduced)

    def save(self, folder: Path) -> None:
        """Write encoder.safetensors and encoder.json into the folder."""
        from safetensors.numpy import save

        arrays = {f"layer.{name}": value for name, value in self.layers.items()}
        arrays |= {f"reduction.{name}": getattr(self.reduction, name) for name in ("offset", "scale", "basis")}
        arrays |= {f"mixture.{name}": getattr(self.mixture, name) for name in ("weights", "means", "variances")}
        publish(folder / "encoder.safetensors", save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
        told = {
            "format": FORMAT,
            "settings": self.settings.model_dump(mode="json"),
            "explained": self.reduction.explained,
            "mixture": {"converged": self.mixture.converged, "iterations": self.mixture.iterations},
            "likelihood": self.likelihood._asdict(),
            "losses": self.losses,
            "converged": self.converged,
            "because": self.because,
        }
        publish(folder / "encoder.json", json.dumps(told, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """The encoder that `save` wrote."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            told: dict[str, Any] = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
            if told["format"] != FORMAT:
                raise ValueError(f"it has format {told['format']}")
            part = load((folder / "encoder.safetensors").read_bytes())
            settings = EncoderSettings.resolve(told["settings"], str(folder / "encoder.json"))
            offset, scale, basis = (part[f"reduction.{name}"] for name in ("offset", "scale", "basis"))
            weights, means, variances = (part[f"mixture.{name}"] for name in ("weights", "means", "variances"))
            reduction = Reduction(offset, scale, basis, told["explained"])
            converged, steps = told["mixture"]["converged"], told["mixture"]["iterations"]
            mixture = Mixture(weights, means, variances, converged, steps, settings.mixture.active_share)
            layers = {name.removeprefix("layer."): a for name, a in part.items() if name.startswith("layer.")}
            chances = Likelihood(**told["likelihood"])
            return cls(
                settings, reduction, layers, mixture, chances, told["losses"], told["converged"], told["because"]
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as problem:
            raise UserError(
                f"{folder}: no encoder of format {FORMAT} can be read ({problem}); fit it again from the states."
            ) from None


def fit_encoder(
    states: Floats,
    problems: Integers,
    settings: EncoderSettings,
    seed: int,
    reduction: Reduction | None = None,
) -> Encoder:
    """Fit on states [n, d] (fp16 memory map or float32) of numbered problems [n]; raises UserError where they cannot be fitted.

    `reduction`: that of another encoder fitted on the same points under the same seed, to spare the readings. One
    thread, so that the result does not depend on how many there are.
    """
    known = _known(problems, settings, seed)
    with threadpool_limits(1):
        if reduction is None:
            rows = np.flatnonzero(known)
            reduction = fit_reduction(states, problems, rows, settings.components, settings.centre, seed)
        reduced = reduction.apply(states)
        if settings.centre:
            reduced = subtract(reduced, problems, problem_means(reduced, problems))
        if settings.kind == "pca":
            layers: dict[str, Floats] = {}
            losses: list[float] = []
            z = reduced[:, : settings.latent]
        else:
            from mind_distill.latent.autoencoder import encode, train

            layers, losses = train(reduced[known], settings, seed)
            z = encode(layers, reduced)
        mixture = fit_mixture(z[known], settings.mixture, seed)
        chances = likelihood(mixture, z[known], z[~known], settings.mixture.regularisation)
    converged, because = _judge(mixture, losses, settings)
    return Encoder(settings, reduction, layers, mixture, chances, losses, converged, because)


def _known(problems: Integers, settings: EncoderSettings, seed: int) -> NDArray[np.bool_]:
    """Which points belong to problems that may be fitted on."""
    numbers = np.unique(problems)
    aside = max(1, round(settings.held_out * len(numbers)))
    free = len(problems) - (len(numbers) if settings.centre else 1)
    if len(numbers) < 5 or free < 2 * settings.latent:
        raise UserError(
            f"{len(problems)} texts about {len(numbers)} problems are too few for z of width {settings.latent}: at least 5 "
            f"problems and {2 * settings.latent} texts beyond the first of each problem are needed; read more problems."
        )
    return ~np.isin(problems, np.random.default_rng(seed).permutation(numbers)[:aside])


def _judge(mixture: Mixture, losses: list[float], settings: EncoderSettings) -> tuple[bool, str]:
    """Whether training came to rest, and the reason in words."""
    faults = []
    if not mixture.converged:
        faults.append(f"the mixture did not come to rest in {mixture.iterations} steps (raise mixture.iterations)")
    if losses:
        late = settings.refit_every
        if len(losses) < 2 * late:
            faults.append(
                f"{len(losses)} rounds are too few to tell whether the autoencoder's error is level (raise rounds)"
            )
        else:
            before, after = float(np.mean(losses[-2 * late : -late])), float(np.mean(losses[-late:]))
            if abs(before - after) > PLATEAU * before:
                change = abs(1 - after / before)
                faults.append(
                    f"the autoencoder's error still changed by {change:.1%} over the last {late} rounds (raise rounds)"
                )
    if faults:
        return False, "; ".join(faults)
    return True, f"the mixture came to rest after {mixture.iterations} steps" + (
        " and the autoencoder's error is level" if losses else ""
    )
