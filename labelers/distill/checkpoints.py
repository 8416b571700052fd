"""Checkpoints: all that a training needs to go on where it was, so that a kill loses a few steps at most.

A file's name ends in a digest of its bytes. It is written under another name first and takes its own when it
is whole; one whose bytes have changed since is passed over for the one before.
"""

from __future__ import annotations

import re
from hashlib import file_digest
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import warn

from harness.errors import InputError, StopgapWarning
from harness.trec_bytes import replace_file

__all__ = ["Checkpoints"]

_NAME = re.compile(r"(\d{8})-([0-9a-f]{16})\.pt")
_KEPT = 2


class Checkpoints:
    """Those of one training, numbered in their order; the last two are kept.

    Parameters
    ----------
    folder: of this training alone; it is made when the first is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, number: int, state: dict[str, Any]) -> None:
        """Keep a state: tensors, numbers and texts, in dicts and lists.

        Raises
        ------
        InputError: it cannot be written (no space, no permission); those before are left as they are.
        """
        import torch

        self.folder.mkdir(parents=True, exist_ok=True)
        buffer = BytesIO()
        torch.save(state, buffer)
        digest = _digest(buffer)
        try:
            with replace_file(self.folder / f"{number:08}-{digest}.pt") as file:
                file.write(buffer.getbuffer())
        except OSError as error:
            what = f"no checkpoint can be written: {error.strerror}"
            raise InputError(
                self.folder, None, what, "Next: make room, then run the same command again"
            ) from None
        for old, _ in self._found()[:-_KEPT]:
            old.unlink()

    def last(self) -> dict[str, Any] | None:
        """The state of the last one that is whole, or None if there has been none.

        Warns of each that is not.

        Raises
        ------
        InputError: there are some, and none is whole.
        """
        import torch

        found = self._found()
        for path, digest in reversed(found):
            try:
                buffer = BytesIO(path.read_bytes())
                if _digest(buffer) != digest:
                    raise ValueError("its bytes are not those that were written")
                state: dict[str, Any] = torch.load(buffer, map_location="cpu", weights_only=True)
            except Exception as exc:  # whatever torch raises at what is no checkpoint
                kept = "the one before is used" if path != found[0][0] else "there is none before it"
                warn(f"checkpoint {path} is broken: {exc}; {kept}", StopgapWarning, stacklevel=2)
                continue
            return state
        if found:
            what = f"none of its {len(found)} checkpoints is whole"
            raise InputError(self.folder, None, what, f"Next: delete {self.folder} to train from the start")
        return None

    def _found(self) -> list[tuple[Path, str]]:
        """The files and the digests they should have, by number."""
        if not self.folder.is_dir():
            return []
        named = [(path, _NAME.fullmatch(path.name)) for path in self.folder.iterdir()]
        # Two of one number: a training that went on from the one before has come here again.
        files = sorted((m[1], path.stat().st_mtime_ns, path, m[2]) for path, m in named if m)
        return [(path, digest) for _, _, path, digest in files]


def _digest(buffer: BytesIO) -> str:
    buffer.seek(0)
    digest = file_digest(buffer, "sha256").hexdigest()[:16]
    buffer.seek(0)
    return digest
