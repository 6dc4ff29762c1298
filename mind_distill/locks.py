"""The lock on a run directory and on a journal: one writer at a time."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from mind_distill.errors import UserError


class Lock:
    """An exclusive lock in the file `path`; the system frees it when the process dies, however it dies.

    `what` begins the sentences of the UserError that is raised where another process holds it or the file cannot be opened.
    """

    def __init__(self, path: Path, what: str) -> None:
        import fcntl

        self._path = path
        while True:
            try:
                self._file = path.open("a+", encoding="utf-8")
            except OSError as problem:
                raise UserError(
                    f"{what} cannot be opened for writing ({problem.strerror}). What is in it is untouched. Mend the folder, or "
                    "choose another --output."
                ) from None
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._file.seek(0)
                holder = self._file.read().strip() or "another process"
                self._file.close()
                raise UserError(
                    f"{what} is being written by {holder}. Wait for it, or choose another --output."
                ) from None
            with contextlib.suppress(OSError):
                if os.fstat(self._file.fileno()).st_ino == path.stat().st_ino:
                    break
            self._file.close()  # its last holder removed it between our opening and our locking it
        self._file.truncate(0)
        with contextlib.suppress(OSError):  # a full disk is no reason not to read
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
            self._file.flush()

    def release(self) -> None:
        """Free the lock."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            self._file.close()
