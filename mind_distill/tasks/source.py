"""Where the rows of a published data set are: on the hub, or in a folder of files; one row, read field by field."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mind_distill.errors import UserError
from mind_distill.tasks.hub import hub_is_reachable

ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
FOLDERS = ("", "benchmarks", "train")  # of the data folder
_SNAKE = re.compile(r"[^a-z0-9]+")


class Row(NamedTuple):
    """One row of a data set, and where it stands."""

    where: str
    number: int
    fields: dict[str, Any]

    def get(self, *names: str) -> Any:
        """The first of these fields that holds something, else None."""
        found = (self.fields.get(name) for name in names)
        return next((value for value in found if value is not None and value != ""), None)

    def text(self, *names: str) -> str:
        """The first of these fields, as text; a UserError says which were looked for."""
        value = self.get(*names)
        if value is None or not str(value).strip():
            raise UserError(f"{self.where}: {' or '.join(map(repr, names))} is missing or empty.")
        return str(value).strip()

    def fault(self, what: str) -> UserError:
        """What is wrong with this row."""
        return UserError(f"{self.where}: {what}.")


class Split(NamedTuple):
    """A part of a data set: its id on the hub, or the names (without ending) that its file may have in a folder."""

    hub: str
    files: tuple[str, ...]
    splits: tuple[str, ...] = ("test",)
    configs: tuple[str | None, ...] = (None,)
    access: str = ""


def data_folder(given: str | Path | None = None) -> Path | None:
    """The folder of benchmark files: the one given, else $MIND_DATA; None means the hub."""
    name = given or os.environ.get("MIND_DATA")
    if not name:
        return None
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(f"The data folder '{folder}' (--data or $MIND_DATA) is not there.")
    return folder


def read_split(split: Split, folder: Path | None) -> list[Row]:
    """All rows of the split, from the folder if there is one, else from the hub."""
    return list(_from_folder(split, folder) if folder else _from_hub(split))


def find_file(split: Split, folder: Path) -> Path | None:
    """The split's file in the folder, under any of its names and endings; None if it is not there."""
    places = (folder / place / (stem + ending) for stem in split.files for place in FOLDERS for ending in ENDINGS)
    return next((path for path in places if path.is_file()), None)


def _from_folder(split: Split, folder: Path) -> Iterator[Row]:
    path = find_file(split, folder)
    if path is not None:
        return read_rows(path)
    names = ", ".join(f"{stem}.jsonl" for stem in split.files)
    raise UserError(
        f"The data folder '{folder}' holds none of: {names} (also as {', '.join(ENDINGS[1:])}, or in "
        f"{' or '.join(name for name in FOLDERS if name)}/). Put the file of {split.hub} there, or leave --data and "
        "$MIND_DATA out to load it from the hub."
    )


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a .jsonl, .json, .csv (each also .gz) or .parquet file."""
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            packed = path.read_bytes()
            text = (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode("utf-8-sig")
            rows = _parse(text, path.name.removesuffix(".gz"))
    except (OSError, EOFError, ValueError, RecursionError) as problem:
        raise UserError(f"{path}: cannot be read: {' '.join(str(problem).split())[:200]}") from None
    for number, fields in enumerate(rows):
        if not isinstance(fields, dict):
            raise UserError(f"{path}, row {number + 1}: is not a set of fields.")
        yield Row(f"{path}, row {number + 1}", number, fields)


def _parse(text: str, name: str) -> list[Any]:
    if name.endswith(".csv"):
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if name.endswith(".json"):
        values = json.loads(text)
        return values if isinstance(values, list) else [values]
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _from_hub(split: Split) -> Iterator[Row]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    _work_offline_unless_reachable()
    number = 0
    for config in split.configs:
        for part in split.splits:
            try:
                rows = load_dataset(split.hub, config, split=part)
            except DatasetNotFoundError as problem:
                told = split.access or "Check the id, or give a folder with its file by --data or $MIND_DATA."
                raise UserError(f"{split.hub}: {_line(problem)} {told}") from None
            except (OSError, ValueError) as problem:
                raise UserError(
                    f"{split.hub} could not be loaded from the hub ({_line(problem)}). Without a network, give a folder that "
                    f"holds {split.files[0]}.jsonl by --data or $MIND_DATA."
                ) from None
            for fields in rows:
                yield Row(f"{split.hub}, {part} row {number + 1}", number, dict(fields))
                number += 1


@cache
def _work_offline_unless_reachable() -> None:
    """Where the hub cannot be reached, its cache is read at once; its client would try again for half a minute a data set."""
    import datasets.config
    import huggingface_hub.constants

    if not hub_is_reachable():
        huggingface_hub.constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = True


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200]


def snake(name: str) -> str:
    """'Counting & Probability' as counting_and_probability."""
    return _SNAKE.sub("_", name.lower().replace("&", " and ")).strip("_")
