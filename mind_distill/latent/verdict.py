"""The paper's question of section 5, answered in words from numbers: intrinsic, artefact, or it cannot be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mind_distill.latent.effects import Estimate

LEVEL = 0.05
HALF = 0.5  # share of its strength that a preference keeps on shuffled feedback, from which MetaNet makes it by itself
LITTLE = 0.5  # correlation below which two preferences have less than a quarter of their variance in common

Word = Literal["intrinsic", "artefact", "cannot be told"]


@dataclass(frozen=True)
class Kept:
    """Strength of the preference of MetaNet trained again on the run's own feedback, and on shuffled feedback."""

    own: float
    shuffled: float
    shuffled_most: float
    p: float


@dataclass(frozen=True)
class Claim:
    """What was measured of one kind of preference: of MetaNet's pi_tau(s), of MetaNets retrained, of the student's pi_tau(-L).

    `by` is None for a preference over all problems, else subject or level. Strengths are those of `effects.strength`.
    """

    by: str | None
    strength: float
    p: float
    kept: Kept | None = None
    student: float | None = None
    student_p: float | None = None
    agreement: Estimate | None = None


@dataclass(frozen=True)
class Answer:
    """One answer and the numbers that it rests on, in a few sentences."""

    question: str
    answer: Word
    because: str


def answer(claim: Claim, reinforcement: Estimate | None) -> Answer:
    """The answer for one kind of preference. Where the numbers allow two readings it cannot be told."""
    question = f"a preference that depends on the {claim.by}" if claim.by else "a preference for some ways of thinking"
    word, reasons = _judge(claim)
    if word != "cannot be told" and reinforcement and reinforcement.low > 0:
        reasons.append(
            f"MetaNet adds to it: a path's loss falls by {reinforcement.value:.2f} nats a unit of alpha more "
            f"({reinforcement.low:.2f} to {reinforcement.high:.2f}) than under uniform weights."
        )
    return Answer(question, word, " ".join(reasons))


def _judge(claim: Claim) -> tuple[Word, list[str]]:
    if claim.p >= LEVEL:
        return "cannot be told", [
            f"MetaNet's scores show no such preference beyond chance (p = {claim.p:.2g}), so there is nothing to explain."
        ]
    if claim.kept is None:
        return "cannot be told", ["MetaNet was not trained again on shuffled feedback."]
    kept = claim.kept
    told = f"strength {kept.own:.3f}, on shuffled feedback {kept.shuffled:.3f} (at most {kept.shuffled_most:.3f}, p = {kept.p:.2g})"
    if kept.p > LEVEL:
        if kept.shuffled >= HALF * kept.own:
            return "artefact", [f"MetaNet keeps it when the student's feedback is shuffled: {told}."]
        return "cannot be told", [f"MetaNet's preference is not beyond what shuffled feedback can give: {told}."]
    reasons = [f"MetaNet loses it when the student's feedback is shuffled: {told}."]
    if claim.student_p is None or claim.student is None:
        reasons.append("But no run with uniform weights shows what the student prefers where MetaNet has no say.")
        return "cannot be told", reasons
    return _beside_the_student(claim, claim.student, claim.student_p, reasons)


def _beside_the_student(claim: Claim, strength: float, p: float, reasons: list[str]) -> tuple[Word, list[str]]:
    """MetaNet follows the feedback: is the feedback the student's own, or what MetaNet made of the student?"""
    shared = claim.agreement
    alike = (
        f"r = {shared.value:.2f} ({shared.low:.2f} to {shared.high:.2f}), p = {shared.p:.2g}"
        if shared
        else "no variation"
    )
    alone = f"The student trained with uniform weights has a preference of strength {strength:.3f} (p = {p:.2g})"
    if p < LEVEL and shared and shared.p is not None and shared.p < LEVEL and shared.low > 0:
        return "intrinsic", [*reasons, f"{alone}, and it is the same one: {alike}."]
    if p < LEVEL and shared and shared.high < LITTLE:
        return "artefact", [*reasons, f"{alone}, but another one: {alike}."]
    if p >= LEVEL:
        return "cannot be told", [*reasons, f"{alone}, which chance explains."]
    return "cannot be told", [*reasons, f"{alone}; whether it is the same one is open: {alike}."]
