"""The counter-test of section 5: MetaNet alone, trained again on a run's stored visits, and on the same losses shuffled.

Its code is that of the method. What cannot be had again is the warm-up's reading of the untouched student, which a run does not
keep: each problem's first recorded losses stand in for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mind_distill.errors import UserError
from mind_distill.latent.trace import Flags, Floats, Trace
from mind_distill.losses import ranking_loss
from mind_distill.metanet.teaching import TeachingAssistant
from mind_distill.methods.base import Setting, Track
from mind_distill.methods.mind import MindSettings
from mind_distill.methods.weights import Rule, fuse
from mind_distill.student.packages import cache_folder

Shuffle = Literal["none", "perspectives", "problems"]


@dataclass(frozen=True)
class Feedback:
    """What MetaNet is told: losses [V, K] and which are known, a row a visit; and losses [P, K] for the warm-up."""

    losses: Floats
    known: Flags
    first: Floats
    first_known: Flags


class Retraining:
    """MetaNet as the run began it, which can be trained again and again from the same start."""

    def __init__(self, trace: Trace, tau: float, track: Track) -> None:
        self.trace, self.tau = trace, tau
        own = {key: value for key, value in trace.settings["method"].items() if key != "name"}
        self.settings = MindSettings.resolve(own, f"{trace.run}: method mind")
        if self.settings.weights != "metanet":
            raise UserError(
                f"{trace.run}: method.weights is '{self.settings.weights}', so it has no MetaNet to examine; name a run with "
                "method.weights=metanet."
            )
        training = trace.settings["training"]
        rate = self.settings.meta_learning_rate
        setting = Setting(
            trace.perspectives,
            trace.settings["answer_format"],
            training["seed"],
            trace.settings["encoder"],
            cache_folder(),
        )
        self.assistant = TeachingAssistant(
            self.settings.metanet,
            self.settings.warm_up,
            training["learning_rate"] if rate == "student" else rate,
            self.settings.kl_direction,
            setting,
        )
        self.assistant.embed(trace.lessons, track)
        self._start = self.assistant.state_dict()
        self._start = self._start._replace(tensors={name: t.clone() for name, t in self._start.tensors.items()})
        self._steps = {int(step): np.flatnonzero(trace.step == step) for step in np.unique(trace.step)}

    def feedback(self, shuffle: Shuffle, rng: np.random.Generator) -> Feedback:
        """The run's own losses; or with the perspectives of each visit, or the problems, exchanged."""
        trace, own = self.trace, self.trace.nll
        first = _first(trace)
        if shuffle == "perspectives":
            own, first = _exchanged(own, rng), _exchanged(first, rng)
        elif shuffle == "problems":
            donor = rng.permutation(len(trace.lessons))
            own, first = _donated(trace, donor), first[donor]
        valid = trace.valid
        return Feedback(own, np.isfinite(own) & valid[trace.problem], first, np.isfinite(first) & valid)

    def alpha(self, shuffle: Shuffle, seed: int) -> tuple[Floats, Floats]:
        """Scores and alpha [V, K] that MetaNet gives at each visit, trained from its start on this feedback."""
        told = self.feedback(shuffle, np.random.default_rng(seed))
        self.assistant.load_state_dict(self._start)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._warm_up(told)
            scores = np.full(self.trace.nll.shape, np.nan)
            for step, rows in self._steps.items():
                scores[rows] = self._step(step, rows, told)
        return scores, self._weights(scores)

    def _warm_up(self, told: Feedback) -> None:
        rows = np.flatnonzero(told.first_known.any(1))
        ids = [self.trace.lessons[i].problem.id for i in rows]
        losses, known = _tensors(told.first[rows], told.first_known[rows])
        self.assistant.warm_up(ids, losses, known, self.tau, lambda _: None)

    def _step(self, step: int, rows: np.ndarray, told: Feedback) -> Floats:
        """The scores before the step, which is taken with equation 1 on what is known."""
        lessons = [self.trace.lessons[i] for i in self.trace.problem[rows]]
        valid = torch.from_numpy(self.trace.valid[self.trace.problem[rows]])
        recorded = self.assistant.scores(lessons, valid)  # without dropout, as the run recorded its own
        scores = self.assistant.scores(lessons, valid, train=True)
        losses, known = _tensors(told.losses[rows], told.known[rows])
        heard = known.any(-1)
        if bool(heard.any()):
            loss = ranking_loss(scores[heard], losses[heard], known[heard], self.tau, self.settings.kl_direction).mean()
            torch.autograd.backward(loss)
            self.assistant.after_step(step, self.settings.meta_every)
        return np.asarray(recorded.numpy(), dtype=float)

    def _weights(self, scores: Floats) -> Floats:
        """The fusion weights that the method gives to these scores."""
        s = self.settings
        rule = Rule(s.select, s.beta, s.top_k, self.tau, s.tau_student or self.tau, s.explore_eps)
        valid = torch.from_numpy(self.trace.valid[self.trace.problem])
        alpha = fuse(torch.from_numpy(scores).float(), valid, rule).alpha
        return np.where(valid.numpy(), alpha.numpy().astype(float), np.nan)


def _tensors(losses: Floats, known: Flags) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.where(known, losses, 0.0)).float(), torch.from_numpy(known)


def _first(trace: Trace) -> Floats:
    """The losses at each problem's first visit: [P, K]."""
    _, places = np.unique(trace.problem, return_index=True)
    return trace.nll[places]


def _exchanged(losses: Floats, rng: np.random.Generator) -> Floats:
    """Each row's known losses among one another."""
    drawn = losses.copy()
    for row in drawn:
        known = np.flatnonzero(np.isfinite(row))
        row[known] = row[rng.permutation(known)]
    return drawn


def _donated(trace: Trace, donor: Sequence[int] | np.ndarray[Any, Any]) -> Floats:
    """The losses that each visit's donor had at its own visit of the same count, or at its last."""
    visits: list[list[int]] = [[] for _ in trace.lessons]
    drawn = np.empty_like(trace.nll)
    for row, problem in enumerate(trace.problem):
        visits[problem].append(row)
    for problem, rows in enumerate(visits):
        given = visits[int(donor[problem])]
        for count, row in enumerate(rows):
            drawn[row] = trace.nll[given[min(count, len(given) - 1)]]
    return drawn
