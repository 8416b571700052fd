"""Write docs/cli: what `stopgap --help` and each verb's `--help` say, one page each.

python docs/make_cli_pages.py            write the pages
python docs/make_cli_pages.py --check    exit 1, naming the pages, if they say something else than --help
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

PAGES = Path(__file__).resolve().parent / "cli"


def pages() -> dict[str, str]:
    """File name -> text of each page."""
    from harness.cli import app, main

    os.environ["COLUMNS"] = "100"
    made = {}
    for verb in ["", *(str(c.name or getattr(c.callback, "__name__", "")) for c in app.registered_commands)]:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            main([verb, "--help"] if verb else ["--help"])
        command = f"stopgap {verb}".strip()
        text = f"# {command}\n\nWhat `{command} --help` says.\n\n```text\n{shown.getvalue().rstrip()}\n```\n"
        made[f"{verb or 'stopgap'}.md"] = text
    return made


def stale(made: dict[str, str]) -> list[str]:
    """The names of pages that are missing, left over, or say something else."""
    there = {p.name: p.read_text(encoding="utf-8") for p in PAGES.glob("*.md")}
    return sorted(n for n in {*made, *there} if made.get(n) != there.get(n))


def run(arguments: list[str]) -> int:
    """The script."""
    made = pages()
    wrong = stale(made)
    if arguments == ["--check"]:
        if wrong:
            print(
                f"docs/cli is not what --help says: {', '.join(wrong)}. Next: python docs/make_cli_pages.py"
            )
        return 1 if wrong else 0
    PAGES.mkdir(exist_ok=True)
    for name in wrong:
        if name in made:
            (PAGES / name).write_text(made[name], encoding="utf-8")
        else:
            (PAGES / name).unlink()
    print(f"{len(wrong)} of {len(made)} pages written to {PAGES}")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
