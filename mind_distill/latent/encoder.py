"""Section 3.2: an encoder of states into a low-dimensional z, trained together with the mixture that governs it. It sees no labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from mind_distill.config import Settings
from mind_distill.latent.mixture import Floats, Integers, Mixture, MixtureSettings


class EncoderSettings(Settings):
    """The encoder; the paper gives neither its kind nor its sizes, so these are the tested ones (PAPER.md)."""

    kind: Literal["coupled", "pca"] = "coupled"
    """`coupled`: variational autoencoder and mixture in turn. `pca`: the first `latent` principal components, then the mixture."""
    centre: bool = True
    """Remove each problem's mean state first; without it the clusters are subjects."""
    components: int = 256
    latent: int = 16
    hidden: int = 256
    epochs: int = 60
    warm_up: int = 20
    refit_every: int = 5
    batch: int = 128
    learning_rate: float = 1e-3
    kl: float = 0.005
    held_out: float = 0.1
    """Share of the problems that neither encoder nor mixture is fitted on; they give the held-out likelihood."""
    mixture: MixtureSettings = MixtureSettings()


class Centres(NamedTuple):
    """What is subtracted from a point of each problem, in the encoder's reduced space: problem numbers [P] and means [P, components]."""

    problems: Integers
    means: Floats


class Likelihood(NamedTuple):
    """Mean log density of a point: fitted, held out, and held out under one Gaussian fitted to the same z."""

    fitted: float
    held_out: float
    one_gaussian: float


@dataclass(frozen=True)
class Encoder:
    """States to z. `mixture` is the final one; `converged` and `because` say whether it may be relied upon."""

    settings: EncoderSettings
    mixture: Mixture
    likelihood: Likelihood
    losses: list[float]
    converged: bool
    because: str

    def centres(self, states: Floats, problems: Integers) -> Centres:
        """The mean of each problem over these states (the specialists'), for `project` of other models on the same problems."""

    def project(self, states: Floats, problems: Integers, centres: Centres | None = None) -> Floats:
        """z [n, L]; without `centres` each problem's mean over these very states is subtracted."""

    def save(self, folder: Path) -> None: ...  # encoder.safetensors, encoder.json
    @classmethod
    def load(cls, folder: Path) -> Encoder: ...


def fit_encoder(states: Floats, problems: Integers, settings: EncoderSettings, seed: int) -> Encoder:
    """Fit on states [n, d] (fp16 memory map or float32) of numbered problems [n]; raises UserError where they cannot be fitted."""
