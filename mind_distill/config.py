"""Strict settings: unknown keys are refused with the nearest valid one, and what was resolved is saved with every run.

A recipe is YAML. `base:` names a recipe to start from; `key.sub=value` on the command line wins over both.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mind_distill.errors import UserError

PACKAGED_RECIPES = Path(__file__).parent / "recipes"
MAX_RECIPE_BYTES = 1 << 20  # a recipe is a page; anything larger is a mistake or an attack


class Settings(BaseModel):
    """Base of every settings class: frozen, and strict about names and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False, protected_namespaces=())

    @classmethod
    def resolve(cls, values: dict[str, Any], where: str) -> Self:
        """The settings made from `values`; a UserError names the key at fault and what would be accepted."""
        try:
            return cls.model_validate(values)
        except ValidationError as problem:
            raise UserError("\n".join(_explain(cls, error, where) for error in problem.errors())) from None


def _explain(cls: type[BaseModel], error: Any, where: str) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return unknown_name(f"{where}: key", key, ".".join(path[:-1]), _fields_at(cls, path[:-1]))
    if error["type"] == "private":  # what was given may be a secret
        return f"{where}: {key}: {error['msg']}."
    return f"{where}: {key or 'the recipe'}: {error['msg']}; got {error.get('input')!r:.80}."


def _fields_at(cls: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part.isdigit():  # a place in a list
            continue
        annotation: Any = cls.model_fields[part].annotation if part in cls.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        found = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not found:
            return []
        cls = found[0]
    return [field.alias or name for name, field in cls.model_fields.items()]


def unknown_name(what: str, given: str, prefix: str, valid: list[str]) -> str:
    """One sentence that refuses a name and proposes the nearest valid one."""
    last = given.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(last, valid, n=1, cutoff=0.5)
    guess = f" Did you mean '{prefix + '.' if prefix else ''}{near[0]}'?" if near else ""
    return f"{what} '{given}' is not known.{guess} Valid: {', '.join(valid)}."


class _Loader(yaml.SafeLoader):
    """YAML without aliases (no bombs) and without duplicate keys (no silent loser); 3e-4 is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not accepted")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"key {twice[0]!r} stands twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader with two things fewer
    except (yaml.YAMLError, RecursionError) as problem:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(problem).split())}") from None


def find_recipe(name: str | Path) -> Path:
    """The recipe file: the path itself, else the recipe of that name that ships with the package."""
    given = Path(name)
    if given.is_file():
        return given
    inside = Path(*given.parts[1:]) if given.parts[:1] == ("recipes",) else given
    for candidate in (PACKAGED_RECIPES / inside, PACKAGED_RECIPES / f"{inside}.yaml"):
        if not given.is_absolute() and ".." not in inside.parts and candidate.is_file():
            return candidate
    shipped = ", ".join(str(p.relative_to(PACKAGED_RECIPES)) for p in shipped_recipes())
    raise UserError(f"There is no recipe '{name}'. Give the path of a YAML file, or one of: {shipped}.")


def shipped_recipes() -> list[Path]:
    """The recipes that come with the package; accelerate/ beside them holds launcher configurations."""
    return sorted(p for p in PACKAGED_RECIPES.rglob("*.yaml") if p.parent.name != "accelerate")


def read_recipe(name: str | Path, overrides: list[str] | None = None) -> dict[str, Any]:
    """The recipe as plain values: its `base` chain merged, then the `key.sub=value` overrides."""
    values = _read_chain(find_recipe(name), seen=())
    for override in overrides or []:
        _apply(values, override)
    return values


def settings_from(overrides: list[str]) -> dict[str, Any]:
    """`key.sub=value` settings that are a recipe by themselves."""
    values: dict[str, Any] = {}
    for override in overrides:
        _apply(values, override)
    return values


def _read_chain(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UserError(f"{path}: 'base' goes round in a circle.")
    if path.stat().st_size > MAX_RECIPE_BYTES:
        raise UserError(f"{path}: a recipe may have at most {MAX_RECIPE_BYTES} bytes.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise UserError(f"{path}: not UTF-8 text ({problem.reason} at byte {problem.start}).") from None
    values: Any = _parse_yaml(text, str(path)) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a set of 'key: value' lines, this is a {type(values).__name__}.")
    base = values.pop("base", None)
    if base is None:
        return values
    beside = path.parent / str(base)
    parent: dict[str, Any] = _read_chain(
        beside if beside.is_file() else find_recipe(str(base)), (*seen, path.resolve())
    )
    return merge(parent, values)


def merge(under: Any, over: Any) -> dict[str, Any]:
    """`under` with `over` laid on it, section by section; a method of another name brings its own settings."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if not isinstance(below, dict) or not isinstance(value, dict):
            result[key] = value
            continue
        other_method = key == "method" and value.get("name", below.get("name")) != below.get("name")
        result[key] = value if other_method else merge(below, value)
    return result


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, raw = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(f"'{override}' is not of the form key.sub=value, for instance training.epochs=2.")
    value = _parse_yaml(raw, override) if raw.strip() else None
    change: Any = _number(value) if isinstance(value, str) else value
    for part in reversed(parts):
        change = {part: change}
    merged = merge(values, change)
    values.clear()
    values.update(merged)


def _number(text: str) -> str | float:
    """YAML 1.1 reads 3e-4 as text; a person means a number."""
    try:
        return float(text) if "e" in text.lower() else text
    except ValueError:
        return text


class _WithoutAliases(yaml.SafeDumper):
    """Writes a value that stands twice twice: recipes are read without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(values: dict[str, Any]) -> str:
    """The values as YAML in their own order."""
    return yaml.dump(values, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True, width=100)
