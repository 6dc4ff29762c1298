"""The seed control: different adapters separate trivially, so perspectives must separate more than seeds do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mind_distill.latent.geometry import GeometrySettings, Measure, Points


@dataclass(frozen=True)
class Verdict:
    """A claim, whether it holds (None: cannot be told) and why, in words."""

    claim: str
    holds: bool | None
    because: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare_with_control(
    study: Points, control: Points, settings: GeometrySettings, seed: int
) -> tuple[list[Measure], Verdict]:
    """Mean pairwise separation of the specialists (`perspective` numbers the models) minus that of the seed-only ones.

    `control.perspective` numbers the seed-only models: at least 2 (1 pair says nothing of spread: the verdict is then at best None);
    use >= 3, and count a study's own specialist among the seeds of its perspective. Any space; both spaces the same kind.
    Measures: separation_perspective, separation_control, separation_excess, pairwise_perspective, pairwise_control.
    """
