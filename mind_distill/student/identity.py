"""What a student's files are, so that a run is never resumed on other weights, another tokenizer or another template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mind_distill.runs import publish
from mind_distill.student.load import Found
from mind_distill.student.packages import cache_folder

_READ = (".safetensors", ".json", ".jinja", ".model", ".txt")  # what transformers reads of a model folder


def identity_of(found: Found) -> str:
    """SHA-256 over the files of the base and of every adapter; of a hub id the commit, and '' while it has not been fetched."""
    digest = hashlib.sha256()
    base = Path(found.base)
    if base.is_dir():
        files = sorted(f for f in base.iterdir() if f.suffix in _READ and f.is_file())
        for file, content in zip(files, _hashes(files), strict=True):
            digest.update(f"{file.name} {content}\n".encode())
    else:
        digest.update(f"{found.base} {_commit(found.base)}\n".encode())
    adapters = [*found.adapters, *found.further]
    for content in _hashes([adapter / "adapter_model.safetensors" for adapter in adapters]):
        digest.update(f"adapter {content}\n".encode())
    return digest.hexdigest()


def _commit(hub_id: str) -> str:
    from transformers.utils import cached_file

    try:
        file = cached_file(hub_id, "config.json")
    except (OSError, ValueError):
        return ""
    parts = Path(str(file)).parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""


def _hashes(files: list[Path]) -> list[str]:
    """SHA-256 of each file; read again only when its size or time of change is another."""
    store = cache_folder() / "hashes.json"
    known: dict[str, list[object]] = {}
    if store.is_file():
        known = json.loads(store.read_text(encoding="utf-8"))
    found, fresh = [], False
    for file in files:
        state = file.stat()
        key, mark = str(file.resolve()), [state.st_size, state.st_mtime_ns]
        if known.get(key, [None])[:2] != mark:
            with file.open("rb") as stream:
                known[key] = [*mark, hashlib.file_digest(stream, "sha256").hexdigest()]
            fresh = True
        found.append(str(known[key][2]))
    if fresh:
        store.parent.mkdir(parents=True, exist_ok=True)
        publish(store, json.dumps(known, indent=1))
    return found
