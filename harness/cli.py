"""The command line: its verbs by name, and what becomes of errors."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from harness import _distill_verbs as distilling
from harness import _label_verbs as labels
from harness import _terminal as terminal
from harness import _verdict_verbs as verdicts
from harness._epilogs import EPILOG, STORY
from harness._help import Group, Verb
from harness.errors import StopgapError, StopgapWarning

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Group,
    help=STORY,
    epilog=EPILOG[""],
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich takes longer than all of `--help` may
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        terminal.write(f"stopgap {version('stopgap')}")
        raise typer.Exit


@app.callback()
def _before_the_verb(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before a verb; they act by themselves."""


for _verb in (
    *(labels.demo, labels.collections, labels.labelers, labels.lint, labels.retrieve, labels.holes),
    *(labels.fill, labels.measure),
    *(verdicts.compare, verdicts.plan, verdicts.agree, verdicts.simulate, verdicts.estimate),
    *(verdicts.diagnose, distilling.distill, verdicts.gate, verdicts.report),
):
    app.command(cls=Verb, epilog=EPILOG.get(_verb.__name__))(_verb)


# -- errors --------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, on `sys.argv` unless `arguments` are given; returns the exit code.

    Whatever goes wrong becomes a message on stderr and never a traceback, unless STOPGAP_TRACEBACK=1 asks
    for one.
    """
    if arguments is not None:
        return _run(arguments)
    # In a process of its own, what is imported stays to the end: to look through it for garbage, while it is
    # imported and once more at the end, takes a fifth of a small command's time.
    gc.set_threshold(100_000)
    try:
        return _run(sys.argv[1:])
    finally:
        gc.freeze()


def _run(arguments: Sequence[str]) -> int:
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", StopgapWarning)
        warnings.showwarning = _show_warning
        try:
            app(list(arguments), prog_name="stopgap")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        except StopgapError as error:
            terminal.say("Error", str(error))
        except Exception as error:
            if os.environ.get("STOPGAP_TRACEBACK"):
                raise
            terminal.say("Error", _unforeseen(error))
    return terminal.BAD_INPUT


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    terminal.say("Warning", str(message))


def _unforeseen(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "out of memory"
    told = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"{told}\nstopgap did not foresee this: please report it. STOPGAP_TRACEBACK=1 shows where it was."
