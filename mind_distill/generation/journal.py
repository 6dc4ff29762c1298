"""The journal of answers: a local SQLite file, so that nothing paid for is lost and nothing known is asked again (section 3.1).

Write-ahead log with synchronous=FULL. One thread writes and commits whatever has gathered while it committed, so that
hundreds of requests at once share a handful of fsyncs.
"""

from __future__ import annotations

import contextlib
import queue
import sqlite3
import threading
import warnings
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from mind_distill.errors import UserError
from mind_distill.generation.endpoint import Reply, Request
from mind_distill.generation.ledger import FORMAT, TABLES, Statement, Totals, add_spent, insert, read_row, select, told
from mind_distill.generation.spare import Spare
from mind_distill.locks import Lock

__all__ = ["Journal", "Totals"]


class _Write(NamedTuple):
    """Statements that belong in one commit, what they add to an endpoint's totals, and who waits for them."""

    statements: tuple[Statement, ...]
    endpoint: str
    spent: Totals
    durable: Future[None]


class Journal:
    """Answers by request key, and what they cost. One process at a time; what returned (or whose Future is done) is on disk."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damaged: list[str] = []  # keys of rows whose bytes changed: they are asked again
        with contextlib.ExitStack() as undo, told(self.path):
            self._holding = Lock(self.path.with_name(self.path.name + ".lock"), f"The journal {self.path}")
            undo.callback(self._holding.release)
            self._spare = Spare(self.path)
            undo.callback(self._spare.remove)
            self._reader = self._connect()
            undo.callback(self._reader.close)
            self._prepare()
            self._writer = self._connect()
            undo.pop_all()
        self._guard = threading.Lock()  # of the reader and the sums
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._failure: Exception | None = None  # nothing can be written any more
        self._full: Exception | None = None  # nothing more may be booked, but what is in flight may still be kept
        self._thread: threading.Thread | None = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def _connect(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, timeout=30, check_same_thread=False, isolation_level=None)
        for setting in ("journal_mode=WAL", "synchronous=FULL", "cell_size_check=ON", "cache_size=-16000"):
            base.execute(f"PRAGMA {setting}")
        return base

    def _prepare(self) -> None:
        """Make the tables, refuse a newer format, and charge what a killed process had in flight."""
        base = self._reader
        base.executescript(f"BEGIN IMMEDIATE;{TABLES}COMMIT;")
        found = base.execute("SELECT version FROM format").fetchone()
        if found is None:
            base.execute("INSERT INTO format VALUES (?)", (FORMAT,))
        elif found[0] != FORMAT:
            raise UserError(
                f"{self.path} is of format {found[0]}, this version reads {FORMAT}. Use the version that wrote it."
            )
        base.execute("BEGIN IMMEDIATE")
        for endpoint, prompt, completion, pico_usd, n in base.execute(
            "SELECT endpoint, SUM(prompt), SUM(completion), SUM(pico_usd), COUNT(*) FROM attempts GROUP BY endpoint"
        ).fetchall():
            add_spent(base, endpoint, Totals(0, prompt, completion, 0, pico_usd, n))
        base.execute("DELETE FROM attempts")
        base.execute("COMMIT")
        self._next_attempt = 1
        self._spent: dict[str, Totals] = {
            row[0]: Totals(*row[1:])
            for row in base.execute(
                "SELECT endpoint, requests, prompt, completion, cached, pico_usd, uncertain FROM spent"
            )
        }

    # Reading

    def get(self, key: str) -> Reply | None:
        """The answer to the request with this key, if there is one."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Reply]:
        """The answers that are there. A row whose bytes changed is named in a warning and missing from the result."""
        with self._guard, told(self.path):
            rows = select(self._reader, keys)
        found = {}
        for key, digest, text in rows:
            reply = read_row(key, digest, text)
            if reply is None:
                self.damaged.append(key.hex())
                warnings.warn(f"{self.path}: the answer {key.hex()} is damaged; it is asked again", stacklevel=2)
            else:
                found[key.hex()] = reply
        return found

    def __len__(self) -> int:
        with self._guard, told(self.path):
            return int(self._reader.execute("SELECT COUNT(*) FROM replies").fetchone()[0])

    def totals(self, endpoint: str | None = None) -> Totals:
        """Spent so far on all endpoints, or on the one of this name; what is being written is in it."""
        with self._guard:
            if endpoint is not None:
                return self._spent.get(endpoint, Totals())
            total = Totals()
            for spent in self._spent.values():
                total = total.plus(spent)
            return total

    # Writing

    def put(self, request: Request, reply: Reply) -> None:
        """Keep an answer that cost nothing more; it is on disk when this returns."""
        self._submit((insert(request.key(), reply),), request.endpoint.name, Totals()).result()

    def book(self, endpoint: str, estimate: Totals) -> tuple[int, Future[None]]:
        """Book an attempt before it is sent: its number, and a Future done once that is on disk.

        Should the process die, or no count of tokens come, the estimate is charged.
        """
        with self._guard:
            attempt = self._next_attempt
            self._next_attempt += 1
        if self._full is not None:
            refused: Future[None] = Future()
            refused.set_exception(self._full)
            return attempt, refused
        values = (attempt, endpoint, estimate.prompt_tokens, estimate.completion_tokens, estimate.pico_usd)
        return attempt, self._submit(
            (("INSERT INTO attempts VALUES (?, ?, ?, ?, ?)", values),), endpoint, Totals(requests=1)
        )

    def settle(
        self, attempt: int, endpoint: str, spent: Totals, key: str | None = None, reply: Reply | None = None
    ) -> Future[None]:
        """What a booked attempt cost, and the answer if it brought a usable one, in one commit."""
        statements: list[Statement] = [("DELETE FROM attempts WHERE id = ?", (attempt,))]
        if key is not None and reply is not None:
            statements.append(insert(key, reply))
        return self._submit(tuple(statements), endpoint, spent)

    def write(self, statements: Iterable[Statement], endpoint: str = "", spent: Totals = Totals()) -> None:  # noqa: B008
        """Statements in one commit, with what they add to the endpoint's sums; on disk when this returns."""
        self._submit(tuple(statements), endpoint, spent).result()

    def read(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        """Rows of a neighbour that keeps its state here (batches)."""
        with self._guard, told(self.path):
            return list(self._reader.execute(query, values))

    def _submit(self, statements: tuple[Statement, ...], endpoint: str, spent: Totals) -> Future[None]:
        durable: Future[None] = Future()
        if self._failure is not None:
            durable.set_exception(self._failure)
            return durable
        if spent != Totals():
            with self._guard:
                self._spent[endpoint] = self._spent.get(endpoint, Totals()).plus(spent)
        self._writes.put(_Write(statements, endpoint, spent, durable))
        return durable

    def _write(self) -> None:
        """The writing thread: commits what has gathered, until None arrives."""
        ended = False
        while not ended:
            gathered = [self._writes.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    gathered.append(self._writes.get_nowait())
            ended = None in gathered
            writes = [write for write in gathered if write is not None]
            failure = self._commit(writes) if self._failure is None else self._failure
            if failure is not None and self._spare.give_up():
                with contextlib.suppress(sqlite3.Error):  # the log holds many versions of a page, the file one
                    self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._full, failure = failure, self._commit(writes)
            self._failure = failure
            for write in writes:
                if failure is None:
                    write.durable.set_result(None)
                else:
                    write.durable.set_exception(failure)

    def _commit(self, writes: list[_Write]) -> Exception | None:
        deltas: dict[str, Totals] = {}
        try:
            with told(self.path):
                self._writer.execute("BEGIN IMMEDIATE")
                for write in writes:
                    for statement, values in write.statements:
                        self._writer.execute(statement, values)
                    if write.spent != Totals():
                        deltas[write.endpoint] = deltas.get(write.endpoint, Totals()).plus(write.spent)
                for endpoint, spent in deltas.items():
                    add_spent(self._writer, endpoint, spent)
                self._writer.execute("COMMIT")
        except Exception as problem:  # whatever it is: a dead writer would leave all who wait for it waiting
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            return problem
        return None

    def close(self) -> None:
        """Wait for what is being written, and free the lock."""
        if self._thread is None:
            return
        self._writes.put(None)
        self._thread.join()
        self._thread = None
        with contextlib.suppress(sqlite3.Error):
            self._writer.close()
            self._reader.close()
        self._spare.remove()
        self._holding.release()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
