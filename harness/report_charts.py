"""Charts as inline SVG, written here rather than by a plotting library, which could do none of what follows.

Coordinates across are percentages and heights are pixels, so that a chart fills its column at any width while
its letters keep their size. Colours come from the style sheet, so that dark mode and print need no second
picture. Each chart is an image with a title and a description that says its numbers in words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.report_html import Html, clip, count, el, join, signed

__all__ = ["Scale", "axis", "columns", "delta_bar", "interval", "scale", "scatter", "share_bar"]

_STEPS = (1, 2, 5, 10)
_REACH = 2.5  # bounds that reach further than this many times the interval are cut, and an arrow says so

_HATCH = el("path", class_="hatch", d="".join(f"M{x} 13L{x + 12} -1" for x in range(-12, 900, 5)))


@dataclass(frozen=True)
class Scale:
    """From values to percent of the width.

    Attributes
    ----------
    low, high: the values at the ends. `ticks`: round values between them.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where `value` lies, 0 to 100; beyond the ends: the end."""
        inside = min(max(value, self.low), self.high)
        return round(100 * (inside - self.low) / (self.high - self.low), 3)

    def text(self, value: float) -> str:
        """`value` as a tick says it, with the digits that tell it from the next."""
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else 1.0
        return signed(value, max(0, -math.floor(math.log10(step) + 1e-9))) if value else "0"


def scale(values: Iterable[float | None], extras: Iterable[float | None] = ()) -> Scale:
    """A scale around 0 that shows all finite `values`, and of `extras` as much as does not dwarf these."""
    told = [v for v in values if v is not None and math.isfinite(v)]
    reach = max(map(abs, told), default=0.0)
    more = [v for v in extras if v is not None and math.isfinite(v)]
    most = max(_REACH * reach, 0.02)
    told += [min(max(v, -most), most) for v in more]
    low, high = min([0.0, *told]), max([0.0, *told])
    if high - low < 1e-6:
        low, high = -0.05, 0.05
    pad = 0.06 * (high - low)
    low, high = low - pad, high + pad
    raw = (high - low) / 5
    ten = 10.0 ** math.floor(math.log10(raw))
    step = next(s * ten for s in _STEPS if s * ten >= raw * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return Scale(low, high, tuple(round(i * step, 10) for i in range(first, last + 1)))


def _image(title: str, description: str, height: float, *content: object) -> Html:
    inside = (el("title", title), el("desc", description), *content)
    # the title is read aloud through aria-label as well: not every screen reader looks into the picture
    return el("svg", *inside, role="img", aria_label=f"{title}. {description}", width="100%", height=height)


def _line(class_: str, x1: float, x2: float, y1: float, y2: float) -> Html:
    return el("line", class_=class_, x1=f"{x1}%", x2=f"{x2}%", y1=y1, y2=y2)


def _grid(on: Scale, height: float) -> Html:
    lines = [_line("zero" if not tick else "grid", on.at(tick), on.at(tick), 0, height) for tick in on.ticks]
    return join(lines)


def interval(
    on: Scale,
    title: str,
    delta: float,
    ci: tuple[float, float],
    *,
    label_ci: tuple[float, float] | None = None,
    bounds: tuple[float, float] | None = None,
    margin: float | None = None,
) -> Html:
    """A row of the interval plot: the margin's band, the interval, the labels' part in it; bounds below."""
    y, below, height = 15.0, 31.0, 40.0
    parts = [_grid(on, height)]
    said = [f"Difference {signed(delta)}, 95 % interval {signed(ci[0])} to {signed(ci[1])}"]
    if margin is not None:
        left, right = on.at(-margin), on.at(margin)
        parts.insert(
            0,
            el("rect", class_="margin", x=f"{left}%", width=f"{right - left:.3f}%", y=0, height=height),
        )
        said.append(f"margin ±{signed(abs(margin)).lstrip('+')}")
    if bounds is not None:
        parts.append(_line("bounds", on.at(bounds[0]), on.at(bounds[1]), below, below))
        parts += [_end(on, bounds[0], below, -1), _end(on, bounds[1], below, 1)]
        said.append(f"bounds over every labeling {signed(bounds[0])} to {signed(bounds[1])}")
    if label_ci is not None:
        parts.append(_line("label-ci", on.at(label_ci[0]), on.at(label_ci[1]), y, y))
        said.append(f"interval of the labels' error alone {signed(label_ci[0])} to {signed(label_ci[1])}")
    parts.append(_line("ci", on.at(ci[0]), on.at(ci[1]), y, y))
    parts += [_line("ci", on.at(end), on.at(end), y - 6, y + 6) for end in ci if on.low <= end <= on.high]
    parts.append(el("circle", class_="dot", cx=f"{on.at(delta)}%", cy=y, r=5))
    return _image(title, "; ".join(said) + ".", height, *parts)


def _end(on: Scale, value: float, y: float, side: int) -> Html:
    """The end of the bounds: a tick where it is, an arrowhead where it lies beyond the picture."""
    if on.low <= value <= on.high:
        return _line("bounds-end", on.at(value), on.at(value), y - 4, y + 4)
    arrow = el("path", class_="bounds-end", d=f"M{-5 * side} -4L0 0L{-5 * side} 4")
    return el("svg", arrow, x=f"{on.at(value)}%", y=y, width=1, height=1)


def axis(on: Scale) -> Html:
    """The ticks below rows of `interval`; the rows say their numbers themselves."""
    texts = []
    for tick in on.ticks:
        at = on.at(tick)
        anchor = "start" if at < 4 else "end" if at > 96 else "middle"
        texts.append(el("text", on.text(tick), x=f"{at}%", y=12, text_anchor=anchor))
    return el("svg", *texts, aria_hidden="true", width="100%", height=18)


def columns(title: str, deltas: Sequence[float], first: str = "", last: str = "") -> Html:
    """Differences in the order given (descending), a column each; `first` and `last` name the two ends."""
    top, body = 22.0, 120.0
    ups, downs = sum(d > 0 for d in deltas), sum(d < 0 for d in deltas)
    reach = max((abs(d) for d in deltas), default=0.0) or 1.0
    high, low = max([0.0, *deltas]) / reach, max([0.0, *(-d for d in deltas)]) / reach
    full = (high + low) or 1.0
    zero = 100 * high / full
    wide = 1.0 if len(deltas) > 120 else 0.72
    paths: dict[str, list[str]] = {"up-fill": [], "down-fill": []}
    for i, d in enumerate(deltas):
        if d:
            tall = -100 * d / reach / full
            paths["up-fill" if d > 0 else "down-fill"].append(f"M{i} {zero:.2f}h{wide}v{tall:.2f}h-{wide}z")
    shapes = [el("path", class_=key, d="".join(path)) for key, path in paths.items() if path]
    plot = el(
        "svg",
        *shapes,
        y=top,
        width="100%",
        height=body,
        viewBox=f"0 0 {max(len(deltas), 1)} 100",
        preserveAspectRatio="none",
    )
    at = top + body * zero / 100
    said = f"{count(len(deltas), 'topic')}: {ups} up, {downs} down, {len(deltas) - ups - downs} the same"
    ends = ""
    if deltas:
        ends = f"; from {signed(deltas[0])} to {signed(deltas[-1])}"
    notes = []
    if deltas:
        notes.append(el("text", *_named(first, deltas[0]), x=0, y=12))
        notes.append(el("text", *_named(last, deltas[-1]), x="100%", y=top + body + 17, text_anchor="end"))
    return _image(title, f"{said}{ends}.", top + body + 24, plot, _line("zero", 0, 100, at, at), *notes)


def _named(topic: str, delta: float) -> tuple[Html, Html]:
    """A topic and its difference, kept apart: an id may read from right to left."""
    return el("tspan", clip(topic, 30)), el("tspan", f" {signed(delta)}")


def scatter(title: str, points: Sequence[tuple[float, float]], description: str) -> Html:
    """Points (share 0 to 1, difference); the share across, the difference upwards."""
    on, top, body = scale(y for _, y in points), 12.0, 220.0
    left, right = 9.0, 94.0
    quarters = min(max(1, math.ceil(4 * max((x for x, _ in points), default=1.0) - 1e-9)), 4)

    def across(share: float) -> float:
        return round(left + (right - left) * min(4 * share / quarters, 1.0), 2)

    def up(value: float) -> float:
        return round(top + body * (1 - on.at(value) / 100), 1)

    parts = []
    for tick in on.ticks:
        parts.append(_line("grid" if tick else "zero", left, 100, up(tick), up(tick)))
        parts.append(el("text", on.text(tick), x=0, y=up(tick) - 3))
    step = (5, 10, 25, 25)[quarters - 1]
    for tick in range(0, 25 * quarters + 1, step):
        at = f"{across(tick / 100)}%"
        parts.append(el("text", f"{tick} %", x=at, y=top + body + 18, text_anchor="middle"))
    dots = [el("circle", class_="point", cx=f"{across(x)}%", cy=up(y), r=4.5) for x, y in points]
    return _image(title, description, top + body + 26, *parts, *dots)


def delta_bar(on: Scale, delta: float) -> Html:
    """A bar from 0 to `delta` for a cell of a table, which says the number itself."""
    zero, at = on.at(0), on.at(delta)
    parts = [_line("zero", zero, zero, 0, 12)]
    if delta:
        left, wide = min(zero, at), max(abs(at - zero), 0.3)
        class_ = "up-fill" if delta > 0 else "down-fill"
        parts.append(el("rect", class_=class_, x=f"{left}%", width=f"{wide:.3f}%", y=2, height=8))
    return el("svg", *parts, class_="bar", aria_hidden="true", width="100%", height=12)


def share_bar(human: int, model: int, nobody: int) -> Html:
    """Documents by who graded them: filled, hatched, dotted; for a cell of a table that says the numbers."""
    whole = (human + model + nobody) or 1
    at, parts = 0.0, list[Html]()
    for class_, part in (("human-fill", human), ("model", model), ("none-line", nobody)):
        wide = 100 * part / whole
        place = {"x": f"{at:.3f}%", "width": f"{wide:.3f}%"}
        if part and class_ == "model":
            parts.append(el("svg", _HATCH, **place, y=0, height=12, style="overflow:hidden"))
        elif part:
            parts.append(el("rect", class_=class_, **place, y=0.5, height=11))
        at += wide
    return el("svg", *parts, class_="bar", aria_hidden="true", width="100%", height=12)
