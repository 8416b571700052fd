"""How `--help` looks, the same under every version of typer and in docs/cli, and how arguments are read.

The usage line of a verb names what it cannot do without; `harness._options` has the words. Text, which nearly
all arguments are, and defaults are taken as they stand: typer would import pydantic to look at them.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer.core

__all__ = ["Group", "Verb"]

_WIDEST = 100
_TIED = "\xa0"  # a space that no line is broken at; an ordinary one when shown


class _TextAsItStands:
    """What reads the arguments of a command: text by itself, anything else as typer does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left over."""
        for param in self.get_params(ctx):  # type: ignore[attr-defined]
            param.process_value = partial(_value, param)
        return super().parse_args(ctx, args)  # type: ignore[misc, no-any-return]


def _value(param: Any, ctx: Any, value: Any) -> Any:
    """The value of a parameter for its function, after its callback."""
    kind = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    taken: Any
    if value is None and not param.required:
        taken = () if param.multiple or param.nargs != 1 else None
    elif isinstance(value, str) and kind in (str, Path):
        taken = kind(value)
    elif isinstance(value, list | tuple) and value and kind == list[str]:
        taken = list(value)
    elif isinstance(value, str | int) and (value is param.default or kind is bool):
        taken = value
    else:
        return type(param).process_value(param, ctx, value)
    return taken if param.callback is None else param.callback(ctx, param, taken)


class Verb(_TextAsItStands, typer.core.TyperCommand):
    """A verb of the command line."""

    def get_usage(self, ctx: Any) -> str:
        """`Usage: stopgap VERB ARGUMENT... --needed X [--optional Y]`."""
        arguments, options = _split(self.params)
        words = [p.metavar for p in arguments] + [
            _usage(p) for p in sorted(options, key=lambda p: not p.required)
        ]
        return _hanging(f"Usage: {ctx.command_path} ", " ".join(words) or "[-h]")

    def get_help(self, ctx: Any) -> str:
        """The whole page."""
        arguments, options = _split(self.params)
        above = _listing("Arguments", ((p.metavar, p.help) for p in arguments))
        below = _listing("Options", [*map(_option, options), ("-h, --help", "Show this page.")])
        return _joined(self.get_usage(ctx), _paragraphs(self.help), above, below, self.epilog)


class Group(_TextAsItStands, typer.core.TyperGroup):
    """The command itself, before a verb is named."""

    def get_usage(self, ctx: Any) -> str:
        """The usage line."""
        return f"Usage: {ctx.command_path} VERB ..."

    def get_help(self, ctx: Any) -> str:
        """The verbs, each with the first line of its page."""
        verbs = [(name, (verb.help or "").split("\n\n")[0]) for name, verb in self.commands.items()]
        options = [*map(_option, self.params), ("-h, --help", "Show this page, or that of a verb.")]
        listings = (_listing("Verbs", verbs), _listing("Options", options))
        return _joined(self.get_usage(ctx), _paragraphs(self.help), *listings, self.epilog)


def _width() -> int:
    return min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)


def _split(params: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Arguments and options."""
    kinds: dict[str, list[Any]] = {"argument": [], "option": []}
    for param in params:
        kinds[param.param_type_name].append(param)
    return kinds["argument"], kinds["option"]


def _usage(option: Any) -> str:
    text = f"{option.opts[0]}{_TIED}{option.metavar}" if option.metavar else str(option.opts[0])
    return text if option.required else f"[{text}]" + "..." * option.multiple


def _option(option: Any) -> tuple[str, str]:
    default = option.default
    if isinstance(default, Sequence) and not isinstance(default, str):
        default = ", ".join(default)
    shown = f" [default:{_TIED}{default}]" if option.metavar and default not in (None, "") else ""
    name = ", ".join(option.opts) + (f" {option.metavar}" if option.metavar else "")
    return name, f"{option.help}{shown}"


def _hanging(start: str, text: str) -> str:
    """`start` and then `text`, whose further lines stand under its first."""
    width = max(_width() - len(start), 20)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
    return start + f"\n{' ' * len(start)}".join(lines).replace(_TIED, " ")


def _listing(title: str, entries: Iterable[tuple[str, str]]) -> str:
    entries = list(entries)
    left = max((len(name) for name, _ in entries), default=0) + 2
    return (
        "\n".join([f"{title}:", *(_hanging(f"  {n:<{left}}", words) for n, words in entries)])
        if entries
        else ""
    )


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(_hanging("", part) for part in (text or "").split("\n\n"))


def _joined(*parts: str | None) -> str:
    return "\n\n".join(part for part in parts if part)
