"""Whether the model hub can be reached: asked once and quickly, because its client retries for half a minute."""

from __future__ import annotations

import functools
import os
import socket
from urllib.parse import urlsplit

WAIT = 4.0


@functools.cache
def hub_is_reachable() -> bool:
    """False where the hub is switched off or its host does not answer; true behind a proxy, which knows better."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    parts = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        socket.create_connection(
            (parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)), WAIT
        ).close()
    except OSError:
        return False
    return True
