"""Saves from a damaged journal every answer whose bytes are as they were written."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mind_distill.errors import UserError
from mind_distill.generation.journal import Journal
from mind_distill.generation.ledger import FORMAT, TABLES, insert, read_row
from mind_distill.locks import Lock
from mind_distill.runs import sync_folder

_LEAST_ROW = 100  # bytes; bounds the row numbers to try where the highest cannot be read
_NEXT_ROWS = "SELECT id, key, digest, CAST(reply AS BLOB) FROM replies WHERE id > ? ORDER BY id LIMIT 1000"


class Recovery(NamedTuple):
    """How many answers were saved and how many rows were beyond saving, and where the damaged file lies now."""

    saved: int
    lost: int
    damaged: Path


def count_damage(path: Path) -> int:
    """How many answers have changed bytes; a UserError where the file as a whole is damaged."""
    if not path.is_file():
        raise UserError(f"There is no journal {path}.")
    with Journal(path) as journal:
        problems = [str(row[0]) for row in journal.read("PRAGMA integrity_check(3)")]
        if problems != ["ok"]:
            raise UserError(
                f"{path} is damaged ({problems[0]}). Save what can be read with 'mind journal recover {path}'."
            )
        damaged = 0
        last: object = 0
        while rows := journal.read(_NEXT_ROWS, (last,)):
            damaged += sum(read_row(*row[1:]) is None for row in rows)
            last = rows[-1][0]
        return damaged


def recover(path: Path) -> Recovery:
    """Write a new journal of all whole answers in the place of the damaged one, which is kept beside it."""
    if not path.is_file():
        raise UserError(f"There is no journal {path}.")
    holding = Lock(path.with_name(path.name + ".lock"), f"The journal {path}")
    try:
        fresh = path.with_name(f"{path.name}.recovering")
        _remove(fresh)
        old, new = sqlite3.connect(path, isolation_level=None), sqlite3.connect(fresh, isolation_level=None)
        saved = lost = 0
        try:
            new.executescript(f"PRAGMA synchronous=FULL; BEGIN; {TABLES}; INSERT INTO format VALUES ({FORMAT});")
            for row in _rows(old, path):
                reply = None if row is None else read_row(*row)
                saved, lost = saved + (reply is not None), lost + (reply is None)
                if row is not None and reply is not None:
                    new.execute(*insert(row[0].hex(), reply))
            _copy_rest(old, new)
            new.execute("COMMIT")
        finally:
            old.close()
            new.close()
        damaged = _free_name(path)
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + ending).rename(damaged.with_name(damaged.name + ending))
        path.rename(damaged)
        fresh.rename(path)
        sync_folder(path.parent)
        return Recovery(saved, lost, damaged)
    finally:
        holding.release()


def _rows(old: sqlite3.Connection, path: Path) -> Iterator[tuple[bytes, bytes, bytes] | None]:
    """Every row by its number: a damaged page then hides its own rows alone. None for a row that cannot be read."""
    try:
        highest = int(old.execute("SELECT MAX(id) FROM replies").fetchone()[0] or 0)
    except sqlite3.Error:
        highest = path.stat().st_size // _LEAST_ROW
    for number in range(1, highest + 1):
        try:
            row = old.execute("SELECT key, digest, CAST(reply AS BLOB) FROM replies WHERE id = ?", (number,)).fetchone()
        except sqlite3.Error:
            yield None
            continue
        if row is not None:
            yield row


def _copy_rest(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """What was spent, what was in flight, and the batches at a service: paid for, and to be collected still."""
    for table in ("spent", "attempts", "batches"):
        with contextlib.suppress(sqlite3.Error):
            rows = old.execute(f"SELECT * FROM {table}").fetchall()
            holes = ",".join("?" * len(rows[0])) if rows else ""
            new.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({holes})", rows)


def _free_name(path: Path) -> Path:
    n = 1
    while path.with_name(f"{path.name}.damaged-{n}").exists():
        n += 1
    return path.with_name(f"{path.name}.damaged-{n}")


def _remove(path: Path) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
