"""The models of a study: which run plays which part, and whether they can be set side by side at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mind_distill.corpus.perspectives import STANDARD, Perspective
from mind_distill.errors import UserError
from mind_distill.latent.study import Entry, LatentSettings, Role, no_specialist
from mind_distill.report.comparison import CellState, read_comparison
from mind_distill.runs import read_settings
from mind_distill.student.identity import identity_of
from mind_distill.student.load import Found, find_student

BASE = "base"  # the untouched student, whose answers are the neutral texts


class Model(NamedTuple):
    """One model under study. `name` is its name in every file, such as 'specialist:planning'."""

    name: str
    role: Role
    perspective: str  # a specialist's key, else ""
    source: str  # a run directory; the student's own name for the base


class Roster(NamedTuple):
    """All models, in the order in which they are read, and which of them the seed control sets side by side."""

    perspectives: tuple[Perspective, ...]
    base: Model
    models: tuple[Model, ...]
    control: tuple[str, ...]  # names: the seed-only runs, and specialists of the same recipe

    def of(self, role: Role) -> list[Model]:
        return [model for model in self.models if model.role == role]


def muster(
    study: LatentSettings,
    where: str,
    known: Sequence[Perspective],
    folder: Callable[[Role, str], Path],
    planned: Mapping[str, dict[str, Any]],
) -> Roster:
    """The models of a study. A UserError names what does not fit, before any model is trained or loaded.

    `known` are the perspectives there are; `folder` says where a run that the study trains lies, and `planned` with what
    settings, by that folder.
    """
    finished = [] if study.study is None else _finished(study.study)
    cells = {cell.name: Path(study.study or "") / cell.folder for cell in finished}
    models = [
        Model(_title(role, name), role, name if role == "specialist" else "", _source(entry, cells, folder(role, name)))
        for role, name, entry in study.entries()
    ]
    if study.specialists == "all":
        models = [*_all(study, finished, cells, known, folder), *models]
    keys = [model.perspective for model in models if model.role == "specialist"]
    for key in study.perspectives or [p.key for p in known]:
        if key not in keys:
            raise no_specialist(key, where)
    names = {p.key: p for p in (*known, *STANDARD)}
    models = [
        model for model in models if model.role != "specialist" or model.perspective in (study.perspectives or keys)
    ]
    roster = [names.get(m.perspective, Perspective(m.perspective, m.perspective, "")) for m in models if m.perspective]
    settings = {m.name: planned.get(m.source) or _settings(m.source) for m in models}
    base = check_alike(models, settings, where, set(planned))
    return Roster(tuple(roster), Model(BASE, "compare", "", base), tuple(models), _control(models, settings, where))


def _settings(source: str) -> dict[str, Any]:
    """The resolved settings of a run; none of a model that is not one."""
    folder = Path(source)
    return read_settings(folder) if (folder / "settings.yaml").is_file() else {}


def _title(role: Role, name: str) -> str:
    return name if role == "compare" else f"{role}:{name}"


def _source(entry: Entry, cells: dict[str, Path], trained: Path) -> str:
    if entry.run is None:
        return str(trained)
    return str(cells.get(entry.run, entry.run))


def _finished(comparison: str) -> list[CellState]:
    return [cell for cell in read_comparison(Path(comparison)).cells if cell.status == "finished"]


def _all(
    study: LatentSettings,
    finished: Sequence[CellState],
    cells: dict[str, Path],
    known: Sequence[Perspective],
    folder: Callable[[Role, str], Path],
) -> list[Model]:
    """A specialist for each perspective: trained by this study, or the first seed of the comparison's single students."""
    sources: dict[str, str] = {}
    if study.study is None:
        sources = {p.key: str(folder("specialist", p.key)) for p in known}
    else:
        for cell in sorted(finished, key=lambda cell: cell.seed):
            if cell.member:
                sources.setdefault(cell.member, str(cells[cell.name]))
        if not sources:
            raise UserError(
                f"{study.study}: this comparison has no finished student of a single perspective. Give it a row single:all, or "
                "name the specialists' runs."
            )
    order = [p.key for p in known if p.key in sources] + [key for key in sources if key not in {p.key for p in known}]
    return [Model(_title("specialist", key), "specialist", key, sources[key]) for key in order]


def check_alike(
    models: Sequence[Model], settings: Mapping[str, dict[str, Any]], where: str, planned: Collection[str] = ()
) -> str:
    """The base that all of these runs are trained from. A UserError where they differ, or a run is not what it stands for.

    Of a run whose folder is in `planned` the settings alone are looked at: it may be untrained yet, or half trained.
    """
    found = []
    for model in models:
        own = settings[model.name]
        if not own:
            _check_there(model, where)
        _check_perspective(model, own)
        ahead = model.source in planned
        one = find_student(own["student"] if ahead else model.source)
        if ahead:
            one = one._replace(answer_format=own["answer_format"], precision=own["training"]["precision"])
        else:
            _check_finite(model, one)
        found.append((model, one))
    _check_form([(model, one) for model, one in found if model.role != "compare"], where)
    bases = [(model, _base_of(settings[model.name], one)) for model, one in found]
    first, base = bases[0]
    widths = {source: _width(source) for source in {source for _, source in bases}}
    identity = {source: identity_of(Found(source)) for source in widths}
    for model, other in bases[1:]:
        if widths[other] != widths[base]:
            raise UserError(
                f"{where}: {first.name} has hidden states of width {widths[base]}, {model.name} of width {widths[other]}; only "
                "runs of one base model can be set side by side."
            )
        if identity[other] != identity[base]:
            raise UserError(
                f"{where}: {first.name} was trained from {base}, {model.name} from {other}; only runs of one base model can be "
                "set side by side."
            )
    return base


def _check_form(found: Sequence[tuple[Model, Found]], where: str) -> None:
    """Specialists that compute in another precision, or answer another prompt, would lie apart for that alone."""
    for what, values in (
        ("answer_format", {one.answer_format: model.name for model, one in found}),
        ("training.precision", {one.precision: model.name for model, one in found}),
    ):
        if len(values) > 1:
            told = ", ".join(f"{name}: {value}" for value, name in values.items())
            raise UserError(
                f"{where}: specialists and seeds differ in {what} ({told}); they would lie apart for that alone."
            )


def _base_of(settings: dict[str, Any], found: Found) -> str:
    """The base before any training; of a fully fine-tuned run the student it began from."""
    return find_student(settings["student"]).base if found.tuned and settings else found.base


def _width(base: str) -> int:
    from transformers import AutoConfig

    try:
        return int(AutoConfig.from_pretrained(base).get_text_config().hidden_size)
    except (OSError, ValueError) as problem:
        raise UserError(f"No model for student '{base}': {' '.join(str(problem).split())[:300]}") from None


def _check_there(model: Model, where: str) -> None:
    """A mistyped folder is told as one; a compared model may also be 'embedded' or a hub id."""
    path = Path(model.source)
    if not path.exists() and (model.role != "compare" or path.parent.is_dir()) and model.source != "embedded":
        raise UserError(f"{where}: {model.name}: there is no run directory '{model.source}'.")


def _check_perspective(model: Model, settings: dict[str, Any]) -> None:
    method = settings.get("method", {})
    if model.role == "specialist" and method.get("name") == "single" and method["perspective"] != model.perspective:
        raise UserError(
            f"{model.source} is trained on perspective '{method['perspective']}', but stands for '{model.perspective}'."
        )


def _check_finite(model: Model, found: Found) -> None:
    """Weights that are not finite would give states that are not; told before a minute is spent on them."""
    import torch
    from safetensors import safe_open

    for adapter in found.adapters:
        with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dict
                if not bool(torch.isfinite(file.get_tensor(key)).all()):
                    raise UserError(
                        f"{model.name}: the weights in {adapter} are not finite ({key}), so its states would not be. Leave this "
                        "run out, or train it again."
                    )


def _control(models: Sequence[Model], settings: Mapping[str, dict[str, Any]], where: str) -> tuple[str, ...]:
    """The seed-only runs, checked to be of one recipe, with the specialists of that recipe. Empty where there are none."""
    seeds = [model for model in models if model.role == "seed"]
    if not seeds:
        return ()
    recipes = {model.name: _recipe(settings[model.name]) for model in models if model.role != "compare"}
    first = recipes[seeds[0].name]
    for model in seeds[1:]:
        other = recipes[model.name]
        apart = sorted(key for key in {*first, *other} if first.get(key) != other.get(key))
        if apart:
            raise UserError(
                f"{where}: seeds: {seeds[0].name} and {model.name} differ in more than their seed ({', '.join(apart)}); the "
                "control needs runs of one recipe."
            )
    members = [m for m in models if m.role == "specialist" and first and recipes[m.name] == first] + seeds
    drawn: dict[int, str] = {}
    for model in members:
        seed = settings[model.name].get("training", {}).get("seed")
        if seed is not None and seed in drawn:
            raise UserError(
                f"{where}: seeds: {drawn[seed]} and {model.name} have the same seed, {seed}; give each its own."
            )
        drawn[seed] = model.name
    return tuple(model.name for model in members)


_OWN = {
    "training.seed",
    "training.threads",
    "training.save_every",
    "training.keep_checkpoints",
    "corpus.hash",
    "corpus.probe_hash",
}


def _recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """What a run is trained with, as flat keys, but for its seed and the lessons that `limit` draws under that seed."""
    flat = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    parts = {f"{a}.{b}": v for a, part in settings.items() if isinstance(part, dict) for b, v in part.items()}
    kept = {key: value for key, value in parts.items() if key not in _OWN and not key.startswith("evaluation.")}
    found: dict[str, Any] = json.loads(json.dumps(flat | kept))
    return found
