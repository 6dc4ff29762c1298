"""What a latent study says: specialists, seed control and students to compare, texts to read, and how they are measured.

A run is named by its folder, or described by a method, and is then trained as the section `train` says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mind_distill.config import Settings, read_recipe
from mind_distill.errors import UserError
from mind_distill.latent.encoder import EncoderSettings
from mind_distill.latent.geometry import GeometrySettings
from mind_distill.latent.maps import MapSettings
from mind_distill.latent.read import Pool
from mind_distill.training.settings import CorpusSettings, Recipe

Role = Literal["specialist", "seed", "compare"]
SECTIONS = tuple(name for name in Recipe.model_fields if name not in ("method", "evaluation", "first"))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")


class Entry(Settings):
    """One run: the folder of a finished one, or a method to train."""

    run: str | None = None
    """A finished run directory, or the name of a cell of `study`."""
    method: dict[str, Any] | None = None
    """A method's name, or its name and settings, as in a recipe."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Training settings of this run alone, over those of `train`."""
    corpus: dict[str, Any] = Field(default_factory=dict)
    """Corpus settings of this run alone, over those of `train`."""

    @model_validator(mode="before")
    @classmethod
    def _folder_alone(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str) else value

    @field_validator("method", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one(self) -> Entry:
        if (self.run is None) == (self.method is None):
            raise ValueError("give a run's folder, or a method to train")
        return self


class LatentSettings(Settings):
    """A whole study of the latent space."""

    train: dict[str, Any] = Field(default_factory=dict)
    """What runs that name a method are trained with: student, encoder, answer_format, corpus, training, as in a recipe."""
    study: str | None = None
    """The folder of a finished `mind compare`: its single-perspective cells are the specialists."""
    specialists: dict[str, Entry] | Literal["all"] = "all"
    """A run for each perspective; `all`: those of `study`, or one trained for each perspective of the corpus."""
    seeds: dict[str, Entry] = Field(default_factory=dict)
    """The seed control: runs of one recipe that differ in their seed alone. A specialist of that recipe counts among them."""
    compare: dict[str, Entry] = Field(default_factory=dict)
    """Students whose own answers are set among the specialists, in the order of the pictures; the plain one first."""
    perspectives: tuple[str, ...] | None = None
    """Keys of the perspectives under study; null = every one of the corpus or, for runs that are there, the standard eight."""
    problems: dict[str, Annotated[int, Field(ge=1)] | None] = Field(min_length=1)
    """Benchmarks that every model answers, with the number of items, null for all."""
    tokens: Annotated[int, Field(ge=1)] | None = None
    """New tokens that an answer may have; null = as many as the benchmark allows."""
    pool: Pool = "mean"
    """Which states stand for a rationale: `mean` over its tokens, the `last` token, or a mean for each of its `steps`."""
    batch: int = Field(16, ge=1)
    """Texts written or read at a time."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    teacher: CorpusSettings | None = None
    """The teacher's rationales of Figure 4c; null = those of `train`, else those the first specialist learned from."""
    sentence_encoder: str = "embedded"
    """What embeds texts, the teacher's and the students' own."""
    encoder: EncoderSettings = EncoderSettings()
    geometry: GeometrySettings = GeometrySettings()
    map: MapSettings = MapSettings()
    seed: int = Field(0, ge=0)
    """Of everything that is fitted, resampled or drawn."""

    @field_validator("problems", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {value: None}
        return dict.fromkeys(value) if isinstance(value, list | tuple) else value

    def entries(self) -> list[tuple[Role, str, Entry]]:
        """Every run that is listed: its role, its name, and what it is."""
        given = {} if isinstance(self.specialists, str) else self.specialists
        groups: list[tuple[Role, dict[str, Entry]]] = [
            ("specialist", given),
            ("seed", self.seeds),
            ("compare", self.compare),
        ]
        return [(role, name, entry) for role, entries in groups for name, entry in entries.items()]


def read_latent_study(name: str | Path, overrides: list[str] | None = None) -> tuple[LatentSettings, dict[str, Any]]:
    """The study and the values it was made from; a UserError names the key at fault."""
    values = read_recipe(name, overrides)
    if "problems" not in values:
        raise UserError(
            f"{name}: a latent study names the 'problems' that every model answers, for instance problems: {{math500: 100}}; "
            "this looks like a recipe for another command."
        )
    study = LatentSettings.resolve(values, str(name))
    _check(study, str(name))
    return study, values


def _check(study: LatentSettings, where: str) -> None:
    wrong = sorted(study.train.keys() - set(SECTIONS))
    if wrong:
        raise UserError(f"{where}: train: '{wrong[0]}' is not known. Valid: {', '.join(SECTIONS)}.")
    for role, name, entry in study.entries():
        key = "specialists" if role == "specialist" else "seeds" if role == "seed" else "compare"
        if not _NAME.fullmatch(name):
            raise UserError(f"{where}: {key}: '{name}' is no name for a file; use letters, digits, '-', '_' and '.'.")
        if entry.method is not None and not study.train:
            raise UserError(
                f"{where}: {key}: '{name}' names a method to train, but the study has no section 'train' that says what with. "
                "Add one, or name the folder of a finished run."
            )
    if study.specialists == "all" and not study.train and study.study is None:
        raise UserError(
            f"{where}: where do the specialists come from? Give specialists: {{planning: runs/planning, ...}}, or study: the "
            "folder of a `mind compare` with a row single:all, or a section 'train'."
        )
    if isinstance(study.specialists, dict):
        _check_perspectives(study.specialists, study.perspectives, where)


def _check_perspectives(given: dict[str, Entry], wanted: tuple[str, ...] | None, where: str) -> None:
    if len(given) < 2:
        raise UserError(
            f"{where}: specialists: {len(given)} of them; there is nothing to tell apart with fewer than two."
        )
    lacking = [key for key in wanted or () if key not in given]
    if lacking:
        raise no_specialist(lacking[0], where)


def no_specialist(perspective: str, where: str) -> UserError:
    """What to say of a perspective that no run was trained on."""
    return UserError(
        f"{where}: perspective '{perspective}' has no specialist. Name its run under specialists, or list under perspectives "
        "those that you have."
    )
