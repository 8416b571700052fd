"""The verb that makes a labeler; what it runs lives with the labelers, and is reached by its name."""

from __future__ import annotations

from importlib import import_module

import typer

from harness import _options as words
from harness import _terminal as terminal

__all__ = ["distill"]

_RUN = "labelers.distill.run"


def distill(
    settings: words.DistillSettings, stages: words.Stages = None, as_json: words.AsJson = False
) -> None:
    """Make a small labeler out of documents and a teacher, stage by stage."""
    try:
        with terminal.progress("distill") as progress:
            found = import_module(_RUN).distill(settings, stages or (), progress=progress)
    except KeyboardInterrupt:
        terminal.say(
            "Stopped", "stages that were done are kept, and so is every answer that cost something; "
            "the same command goes on from there"
        )  # fmt: skip
        raise typer.Exit(terminal.INTERRUPTED) from None
    terminal.show(as_json, found.to_json(), ["stage", "state", "file", "rows"], found.rows(), found.words())
    if found.code:
        raise typer.Exit(found.code)
