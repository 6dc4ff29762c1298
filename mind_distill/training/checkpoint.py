"""Checkpoints: safetensors and JSON only, whole or not there, verified before a byte of them is used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mind_distill.errors import Stopped
from mind_distill.runs import sync_folder

MANIFEST = "manifest.json"


class Checkpoint(NamedTuple):
    """What a checkpoint restores: tensors by file, and plain values."""

    path: Path
    tensors: dict[str, dict[str, Tensor]]
    values: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, dict[str, Tensor]], values: dict[str, Any], keep: int
) -> Path:
    """Write checkpoints/step-NNNNNN: files, SHA-256 manifest last, fsync, one rename; then drop all but the newest `keep`.

    `tensors` maps a file name such as 'adapter/adapter_model.safetensors' to its tensors. What is not finite is never saved.
    """
    for name, group in tensors.items():
        bad = [
            key for key, value in group.items() if value.is_floating_point() and not bool(torch.isfinite(value).all())
        ]
        if bad:
            raise Stopped(
                f"The checkpoint of step {step} was not written: {bad[0]} in {name} is not finite. The one before it is "
                "whole; --resume takes the steps since then again, --force with a lower training.learning_rate."
            )
    final = folder / f"step-{step:06d}"
    temporary = folder / f".step-{step:06d}.{os.getpid()}.tmp"
    try:
        temporary.mkdir(parents=True)
        for name, group in tensors.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            plain = {key: value.detach().contiguous().cpu().clone() for key, value in group.items()}
            save_file(plain, temporary / name)
        (temporary / "state.json").write_text(json.dumps(values, allow_nan=False, indent=1), encoding="utf-8")
        files = sorted(p for p in temporary.rglob("*") if p.is_file())
        sums = {str(p.relative_to(temporary)): _sha256(p) for p in files}
        (temporary / MANIFEST).write_text(json.dumps({"format": 1, "files": sums}, indent=1), encoding="utf-8")
        for path in [*files, temporary / MANIFEST]:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        for inner in {p.parent for p in files}:
            sync_folder(inner)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync_folder(folder)
    except (OSError, SafetensorError) as problem:
        why = getattr(problem, "strerror", None) or problem
        raise Stopped(
            f"The checkpoint of step {step} could not be written ({why}). The one before it is whole; free space or mend the "
            "folder, then continue with --resume."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _checkpoints(folder)[:-keep]:
        # under another name: a half deleted one must not look like a damaged one. One that cannot go does no harm.
        with suppress(OSError):
            shutil.rmtree(old.rename(folder / f".{old.name}.{os.getpid()}.tmp"), ignore_errors=True)
    return final


def _checkpoints(folder: Path) -> list[Path]:
    """Everything published as a checkpoint, damaged since or not, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose every file has its recorded SHA-256, and a sentence for each newer one refused."""
    refused: list[str] = []
    for path in reversed(_checkpoints(folder)):
        fault = _fault(path)
        if fault is None:
            return path, refused
        refused.append(f"{path.name} is damaged ({fault}) and was passed over.")
    return None, refused


def load_checkpoint(path: Path) -> Checkpoint:
    """What a checkpoint that `newest_checkpoint` found whole restores."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    names = [name for name in manifest["files"] if name.endswith(".safetensors")]
    tensors = {name: load_file(path / name) for name in names}
    return Checkpoint(path, tensors, json.loads((path / "state.json").read_text(encoding="utf-8")))


def clear_remains(folder: Path) -> None:
    """Delete what a killed process left half written."""
    for remains in folder.glob(".step-*.tmp"):
        shutil.rmtree(remains, ignore_errors=True)


def _fault(path: Path) -> str | None:
    try:
        sums = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        if "state.json" not in sums or len(sums) < 2:
            return "its manifest lists too little"
        for name, expected in sums.items():
            if _sha256(path / name) != expected:
                return f"{name} has changed"
    except FileNotFoundError as problem:
        return f"{Path(problem.filename).name} is missing"
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return "its manifest cannot be read"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
