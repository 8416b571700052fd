"""HTML by construction: a child that is plain text is escaped, and nothing else can be put in.

Names, ids and texts come from files that anybody may have written. `el` escapes every `str` that is not
already `Html`, and only `el`, `join` and the style sheet make `Html`. Characters that change how a page reads
without being seen (controls, direction overrides) are shown by their code instead.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "Html",
    "clip",
    "count",
    "el",
    "hidden",
    "join",
    "name",
    "number",
    "percent",
    "plain",
    "prose",
    "scroller",
    "signed",
    "span",
    "table",
]

_VOID = frozenset({"meta", "br", "hr"})
_SPACE = re.compile(r"[\t\n\r\f\v\x85\u2028\u2029]")
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)
"""Controls, direction marks and overrides, invisible letters, and what no UTF-8 file can hold."""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def plain(text: str) -> str:
    """`text` with line ends as spaces and what cannot be seen as its code, `[U+202E]`."""
    return _UNSEEN.sub(lambda m: f"[U+{ord(m[0]):04X}]", _SPACE.sub(" ", text))


def clip(text: str, length: int) -> str:
    """`text` in one line, cut to at most `length` characters, with an ellipsis where it was cut."""
    text = " ".join(text[: 4 * length + 200].split())
    if len(text) <= length:
        return text
    cut = text[: length - 1]
    head = cut.rpartition(" ")[0]
    return (head if len(head) > length // 2 else cut).rstrip(" ,.;:") + "…"


def _escaped(child: object) -> str:
    return child if isinstance(child, Html) else html.escape(plain(str(child)))


def el(tag: str, *children: object, **attributes: object) -> Html:
    """An element. `class_` and `aria_label` become `class` and `aria-label`; None and False leave one out."""
    made = [f"<{tag}"]
    for key, value in attributes.items():
        if value is not None and value is not False:
            word = key.rstrip("_").replace("_", "-")
            made.append(f" {word}" if value is True else f' {word}="{_escaped(value)}"')
    made.append(">")
    if tag not in _VOID:
        made.extend(_escaped(child) for child in children if child is not None)
        made.append(f"</{tag}>")
    return Html("".join(made))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other; what is not `Html` is escaped."""
    return Html(html.escape(between).join(_escaped(part) for part in parts))


def name(text: str, length: int = 120) -> Html:
    """A name or id from a file: its direction cannot reach what stands around it."""
    return el("bdi", clip(text, length))


def prose(text: str, names: Iterable[str] = ()) -> Html:
    """A sentence of ours in which the `names` of runs may stand, each kept apart as `name` does."""
    known = sorted({n for n in names if n}, key=len, reverse=True)
    if not known:
        return join([text])
    pattern = re.compile("(" + "|".join(rf"(?<!\w){re.escape(n)}(?!\w)" for n in known) + ")")
    return join(name(part) if i % 2 else part for i, part in enumerate(pattern.split(text)))


def span(class_: str, *children: object) -> Html:
    """A span of a class."""
    return el("span", *children, class_=class_)


def hidden(text: str) -> Html:
    """Text for screen readers only."""
    return span("sr", text)


def scroller(content: Html, label: str) -> Html:
    """A box that scrolls sideways, so that the page need not; the keyboard reaches it too."""
    return el("div", content, class_="scroll", role="region", aria_label=label, tabindex=0)


def table(
    caption: str, columns: Sequence[object], rows: Iterable[Sequence[object]], *, class_: str | None = None
) -> Html:
    """A table whose first column heads its rows; columns after it that hold numbers stand flush right."""
    rows = [list(row) for row in rows]
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    side = ["n" if r else None for r in right]
    heads = [el("th", c, scope="col", class_=s) for c, s in zip(columns, side, strict=True)]
    body = [
        el(
            "tr",
            el("th", row[0], scope="row", class_=side[0]),
            *(el("td", cell, class_=s) for cell, s in zip(row[1:], side[1:], strict=True)),
        )
        for row in rows
    ]
    return el(
        "table",
        el("caption", el("span", caption)),
        el("thead", el("tr", *heads)),
        el("tbody", *body),
        class_=class_,
    )


_NUMBER = re.compile(r"[+−]?[\d,]*\.?\d*( %)?|[+−]?[\d.∞]+ to [+−]?[\d.∞]+|< 0\.\d+|—|[+−]?∞").fullmatch


def _is_number(cell: object) -> bool:
    return not isinstance(cell, Html) and bool(_NUMBER(str(cell)))


def number(value: float | None, digits: int = 4) -> str:
    """`0.4312`; a dash where there is none, so that a missing number is never taken for 0."""
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def signed(value: float | None, digits: int = 3) -> str:
    """`+0.043` or `−0.012`; `0.000` without a sign."""
    text = number(value, digits)
    return f"+{text}" if text[0] not in "−—" and text.strip("0.") else text


def percent(part: float | None, whole: float = 1.0) -> str:
    """`38 %`, one decimal below ten; `< 0.1 %` rather than a 0 that is none; a dash of nothing."""
    if part is None or not whole or math.isnan(part):
        return "—"
    value = 100 * part / whole
    if 0 < value < 0.05:
        return "< 0.1 %"
    return f"{value:.1f} %" if 0 < value < 9.95 or 99.5 <= value < 100 else f"{value:.0f} %"


def count(number: int, noun: str) -> str:
    """`1 topic`, `1,204 topics`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
