"""Where things that can be made again are kept between calls."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir(kind: str) -> Path:
    """The folder for caches of one kind (`indexes`, `documents`, `models`), made if need be.

    STOPGAP_CACHE names the root; without it XDG_CACHE_HOME/stopgap, else ~/.cache/stopgap.
    """
    root = os.environ.get("STOPGAP_CACHE")
    if root is None:
        root = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "stopgap")
    folder = Path(root) / kind
    folder.mkdir(parents=True, exist_ok=True)
    return folder
