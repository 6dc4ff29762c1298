"""A little space put by beside the journal, for a full disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_SPARE_BYTES = 1 << 20  # the answers of some hundred requests in flight


class Spare:
    """Some space put by, given up when the disk is full so that answers in flight can still be kept."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".spare")
        with contextlib.suppress(OSError):
            room = os.statvfs(path.parent)
            size = min(_SPARE_BYTES, room.f_bavail * room.f_frsize // 8)
            with self._path.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, max(size, 1))

    def give_up(self) -> bool:
        """Free the space; False if it was gone already."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
