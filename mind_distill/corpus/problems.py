"""Problems from where people have them: JSON Lines, Parquet, CSV, a hub data set, or the starter corpus; one at a time.

A row becomes a Problem in `columns.py`. A row without a gold answer is left out and told; anything else that is wrong with a row
is a UserError that names it.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from mind_distill.config import Settings
from mind_distill.corpus.columns import Columns, NoGold, find_columns, to_problem
from mind_distill.corpus.read import Corpus
from mind_distill.errors import UserError
from mind_distill.records import Kind, Problem
from mind_distill.tasks.hub import hub_is_reachable

Row = dict[str, Any]
FILES = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".csv", ".csv.gz")


class Source(Settings):
    """Where the problems come from."""

    source: str
    """A .jsonl, .jsonl.gz, .parquet or .csv file, a hub data set id, or `starter`."""
    configs: tuple[str, ...] | None = None
    """Configurations of a hub data set; null: all of them (MATH has seven, one a subject)."""
    split: str = "train"
    """Split of a hub data set."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column holds what ({question: problem, answer: solution}); what is not named is found by its usual names."""
    kind: Kind | None = None
    """Kind of the answers; null: by each row (choices, yes or no, a number after ####, else math)."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many problems, drawn by `seed`."""
    seed: int = 0
    """Of the draw."""


class Missing(NamedTuple):
    """A row that was left out: it has no gold answer."""

    where: str
    reason: str


def read_problems(source: Source) -> Iterator[Problem | Missing]:
    """The problems in the order of their source. Ids may still stand twice; whoever stores them finds out."""
    if source.source == "starter":
        yield from (lesson.problem for lesson in Corpus.load("starter"))
        return
    for name, rows in _parts(source):
        columns: Columns | None = None
        for number, row in rows:
            where = f"{name}, row {number}"
            if columns is None:
                columns = find_columns(row, source.columns, where)
            try:
                yield to_problem(row, columns, source.kind, f"{_stem(name)}-{number:07d}", where)
            except NoGold as problem:
                yield Missing(f"{Path(name).name}, row {number}", str(problem))


def _parts(source: Source) -> Iterator[tuple[str, Iterator[tuple[int, Row]]]]:
    path = Path(source.source)
    if path.is_file() or source.source.endswith(FILES):
        yield source.source, _read_file(path)
        return
    if path.is_dir():
        raise UserError(f"problems.source: {path} is a folder; name the file in it. Accepted: {', '.join(FILES)}.")
    if len(path.parts) != 2:
        raise UserError(
            f"problems.source: there is no file '{source.source}'. Give a file ({', '.join(FILES)}), a hub data set id "
            "(owner/name) or 'starter'."
        )
    yield from _hub_parts(source)


def _stem(name: str) -> str:
    """A short beginning for ids that are made from row numbers."""
    stem = Path(name).name
    for ending in FILES:
        stem = stem.removesuffix(ending)
    return stem[:100]


def _read_file(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
        elif ".csv" in path.suffixes:
            yield from _read_csv(path)
        elif ".jsonl" in path.suffixes or path.suffix == ".json":
            yield from _read_lines(path)
        else:
            raise UserError(f"problems.source: {path}: a file of problems ends in {', '.join(FILES)}.")
    except FileNotFoundError:
        raise UserError(f"problems.source: there is no file '{path}'.") from None
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read: {problem}.") from None


def _read_lines(path: Path) -> Iterator[tuple[int, Row]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as problem:
                raise UserError(f"{path}, line {number}: not valid JSON ({problem}).") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: a JSON object is wanted, this is a {type(row).__name__}.")
            yield number, row


def _read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(min(sys.maxsize, 1 << 24))
    with (
        gzip.open(path, "rt", encoding="utf-8-sig", newline="")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8-sig", newline="") as stream
    ):
        for number, row in enumerate(csv.DictReader(stream), 1):
            if None in row:
                raise UserError(f"{path}, row {number}: has more fields than the head line has columns.")
            yield number, row


def _read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    from pyarrow import parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(path).iter_batches(1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except ValueError as problem:  # ArrowInvalid
        raise UserError(f"{path}: cannot be read: {problem}.") from None


def _hub_parts(source: Source) -> Iterator[tuple[str, Iterator[tuple[int, Row]]]]:
    from datasets import get_dataset_config_names, load_dataset

    name = source.source
    if not hub_is_reachable():
        raise _unreadable(name, "it cannot be reached")
    try:
        configs: Sequence[str] = source.configs or get_dataset_config_names(name)
        parts = [(config, load_dataset(name, config, split=source.split)) for config in configs]
    except Exception as problem:  # the hub client has no common error class
        raise _unreadable(name, " ".join(str(problem).split())[:200]) from None
    for config, rows in parts:
        yield f"{name.rsplit('/', 1)[-1]}-{config}", ((number, dict(row)) for number, row in enumerate(rows, 1))


def _unreadable(name: str, reason: str) -> UserError:
    return UserError(
        f"problems.source: data set '{name}' cannot be read from the hub: {reason}. Check the id and the connection, or give a "
        "local copy: problems.source=FILE."
    )


def source_hash(source: Source) -> str:
    """What identifies the problems: the settings, and a file's content."""
    digest = hashlib.sha256(source.model_dump_json().encode())
    path = Path(source.source)
    if path.is_file():
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
