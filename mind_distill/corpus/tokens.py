"""Counts tokens as an endpoint's model would, for the plan; a name says whose tokenizer did.

The tokenizer's own files are read: transformers would bring torch along, which takes seconds and 350 MB for a count.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mind_distill.errors import UserError
from mind_distill.generation.endpoint import Endpoint, Message
from mind_distill.tasks.hub import hub_is_reachable

CHARACTERS_A_TOKEN = 3.5  # where no tokenizer can be loaded at all
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class Tokenizer:
    """A tokenizer.json with its chat template, if it has one."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Fast

        self._fast = Fast.from_file(str(folder / "tokenizer.json"))
        self._fast.no_truncation()
        self._fast.no_padding()
        config = folder / "tokenizer_config.json"
        self._config = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        own_file = folder / "chat_template.jinja"
        template = own_file.read_text(encoding="utf-8") if own_file.is_file() else self._config.get("chat_template")
        if isinstance(template, list):  # several, by name
            template = next((entry["template"] for entry in template if entry["name"] == "default"), None)
        self.template: str | None = template

    def count(self, texts: list[str]) -> list[int]:
        return [len(found.ids) for found in self._fast.encode_batch(texts, add_special_tokens=False)]

    def render(self, turns: Sequence[Message]) -> str:
        """The prompt as the template writes it, in jinja's sandbox."""
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        assert self.template is not None
        base = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        base.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
        base.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: form}
        special = {name: _text(self._config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
        values = [turn._asdict() for turn in turns]
        return base.from_string(self.template).render(messages=values, add_generation_prompt=True, **special)


def _refuse(message: str) -> None:
    raise UserError(
        f"The model's chat template refuses the prompts of a build ({message}), as its server would. Choose another model, or name "
        "another 'tokenizer' of the endpoint if its server has a template of its own."
    )


def _text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token or "")


class Counter:
    """Counts the tokens of texts, and of the turns of a chat with the template around them."""

    def __init__(self, tokenizer: Any, name: str, exact: bool) -> None:
        self._tokenizer, self.name, self.exact = tokenizer, name, exact

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        if self._tokenizer is None:
            return [round(len(text) / CHARACTERS_A_TOKEN) for text in texts]
        return list(self._tokenizer.count(list(texts)))

    def chat(self, turns: Sequence[Message]) -> int:
        """Tokens of a whole prompt."""
        if self._tokenizer is None or self._tokenizer.template is None:
            return sum(self.count([turn.content for turn in turns])) + 4 * len(turns)
        return self.count([self._tokenizer.render(turns)])[0]


def counter_for(endpoint: Endpoint, named: str | None) -> Counter:
    """The tokenizer that was named, else the model's own, else the embedded student's as an estimate.

    A UserError if one that was named cannot be loaded.
    """
    if named:
        return Counter(_load(named, f"{endpoint.name}: tokenizer"), named, True)
    if "/" in endpoint.model:
        try:
            return Counter(_load(endpoint.model, endpoint.name), endpoint.model, True)
        except UserError:
            pass
    try:
        return Counter(_load("embedded", endpoint.name), "the embedded student's tokenizer", False)
    except UserError:
        return Counter(None, f"{CHARACTERS_A_TOKEN} characters a token", False)


def _load(name: str, where: str) -> Any:
    from mind_distill.student.packages import embedded_student

    try:
        return Tokenizer(embedded_student() if name == "embedded" else _folder(name))
    except UserError:
        raise
    except Exception as problem:  # tokenizers raises plain Exception, the hub's client has no common class
        told = " ".join(str(problem).split())[:200]
        raise UserError(f"{where}: '{name}' has no tokenizer.json that can be loaded here ({told}).") from None


def _folder(name: str) -> Path:
    """The folder of that name, or the hub's files in the cache."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=list(_FILES), local_files_only=not hub_is_reachable()))
