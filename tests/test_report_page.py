"""The page in a real browser: Debian's Chromium, spoken to over its debugging pipe; without it, skipped."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.collection import open_collection
from harness.compare import compare
from harness.frames import QRELS
from harness.ranking import rank
from harness.report import origin, report, write
from harness.report_style import PALETTE

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Browser:
    """Headless Chromium and one page in it."""

    def __init__(self, folder: Path) -> None:
        assert BROWSER
        (ours, self._out), (self._in, theirs) = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--hide-scrollbars", "--disable-background-networking", "--disable-component-update",
                 "--remote-debugging-pipe", f"--user-data-dir={folder}"]  # fmt: skip
        # Chromium reads commands from descriptor 3 and answers on 4
        script = 'exec "$0" "$@" 3<&"$IN" 4>&"$OUT"'.replace('"$IN"', str(ours)).replace(
            '"$OUT"', str(theirs)
        )
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, BROWSER, *flags, "about:blank"],
            pass_fds=(ours, theirs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours)
        os.close(theirs)
        self._rest, self._number, self.events = b"", 0, list[dict[str, Any]]()
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            said = self._read()
            if said.get("id") == self._number:
                assert "error" not in said, said
                return dict(said["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], 60)[0], "Chromium does not answer"
            piece = os.read(self._in, 1 << 20)
            assert piece, "Chromium has gone"
            self._rest += piece
        one, _, self._rest = self._rest.partition(b"\0")
        said: dict[str, Any] = json.loads(one)
        if "method" in said:
            self.events.append(said)
        return said

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a file as a reader of that width and taste would see it."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 500)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(e["method"] == "Page.loadEventFired" for e in self.events):
            self._read()

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression: the debugger's, for the page's policy forbids it any."""
        said = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the page from top to bottom."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def close(self) -> None:
        self._session = None
        self.call("Browser.close")
        self._process.wait(timeout=20)
        os.close(self._in)
        os.close(self._out)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if BROWSER is None:
        pytest.skip("no chromium here. Next: apt-get install -y chromium")
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()


EVIL = [
    "<script>document.title='owned'</script>",
    "</style></title><img src=http://127.0.0.1:9/x onerror=document.title='owned'>",
    "\" autofocus onfocus=document.title='owned' x=\"",
    "\u202eevil\u202c",
    "x" * 300,
    "שלום עולם",
]


def make(folder: Path, topics: list[str], words: list[str], names: list[str]) -> Path:
    """A page of runs on a collection of its own, from a real comparison."""
    rng = np.random.default_rng(7)
    docs = [f"{words[i % len(words)]}_{i}".replace(" ", "_") for i in range(40)]
    lines = [json.dumps({"doc_id": d, "title": d, "text": f"{d} {' '.join(words)} " * 9}) for d in docs]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    queries = "".join(f"{t}\t{words[i % len(words)]} {i}\n" for i, t in enumerate(topics))
    (folder / "queries.tsv").write_text(queries, encoding="utf-8")
    (folder / "qrels.human.txt").write_text("q 0 d 3\n")
    runs = {}
    for name in names:
        rows = [(t, docs[d], float(-i)) for t in topics for i, d in enumerate(rng.permutation(40)[:12])]
        runs[name] = rank(pl.DataFrame(rows, schema=["query_id", "doc_id", "score"], orient="row"))
    made: list[tuple[object, ...]] = []
    for topic in topics:
        for i, doc in enumerate(docs[:34]):
            grade, probs = int(rng.integers(0, 4)), rng.dirichlet([1.0] * 4)
            human = (grade, float(grade), "human", None)
            model = (int(probs.argmax()), float(probs @ range(4)), "minilm@1", probs.tolist())
            made.append((topic, doc, *(human if i % 3 else model)))
    qrels = pl.DataFrame(made, schema={**QRELS, "probs": pl.List(pl.Float32())}, orient="row")
    page = report(
        compare(runs, qrels, ["nDCG@10", "P@5"], margins=0.02),
        runs,
        qrels,
        collection=open_collection(str(folder)),
        agreement={"kappa": 0.58, "auc": 0.96, "ece": 0.04},
        provenance=origin([folder / "queries.tsv"], ["stopgap", "report", *words]),
    )
    write(page, folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def fair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    topics = [f"t{i}" for i in range(50)]
    return make(tmp_path_factory.mktemp("fair"), topics, ["a few words"], ["old", "new"])


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    topics = [f"{word}{i}".replace(" ", "_") for i, word in enumerate(EVIL * 2)]
    return make(tmp_path_factory.mktemp("evil"), topics, EVIL, EVIL[:3])


def first_pixel(png: bytes) -> str:
    """The colour of the upper left corner, which no PNG filter changes."""
    at, data = 8, b""
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    return "#" + zlib.decompress(data)[1:4].hex()


# -- nothing gets in or out ----------------------------------------------------------------------------------

REQUEST = "Network.requestWillBeSent"
TROUBLE = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"}


def noticed(browser: Browser) -> list[str]:
    """What the browser saw since the page was opened: requests beyond the file, errors, dialogs."""
    seen = []
    for event in browser.events:
        method, params = event["method"], event["params"]
        if method == REQUEST and not params["request"]["url"].startswith("file:"):
            seen.append(f"request {params['request']['url']}")
        elif method in TROUBLE:
            seen.append(method)
        elif method == "Log.entryAdded":
            seen.append(f"log {params['entry']['text']}")
    return seen


@pytest.mark.parametrize("page", ["fair", "evil"])
def test_the_page_asks_for_nothing_and_logs_nothing(
    browser: Browser, page: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(page)
    browser.open(path)
    assert noticed(browser) == []
    sent = [e["params"]["request"]["url"] for e in browser.events if e["method"] == REQUEST]
    assert sent == [path.as_uri()]
    foreign = "script,iframe,img,object,embed,link,form,input,[autofocus],[onerror],[onfocus]"
    assert browser.ask(f"document.querySelectorAll('{foreign}').length") == 0
    assert browser.ask("document.title").endswith("stopgap report")


def test_even_a_script_that_got_in_could_do_nothing(browser: Browser, fair: Path, tmp_path: Path) -> None:
    """The policy holds by itself, and `noticed` would notice."""
    own = "document.title='owned'"
    way_in = (
        f'<script>{own}</script><img src="http://127.0.0.1:9/x" onerror="{own}">'
        "<p style='background:url(http://127.0.0.1:9/y)'>x</p></body>"
    )
    text = fair.read_text(encoding="utf-8").replace("</body>", way_in)
    (tmp_path / "owned.html").write_text(text, encoding="utf-8")
    browser.open(tmp_path / "owned.html")
    assert browser.ask("document.title") != "owned"
    assert any("Content Security Policy" in seen for seen in noticed(browser))
    answers = [e["params"] for e in browser.events if e["method"] == "Network.responseReceived"]
    assert all(a["response"]["url"].startswith("file:") for a in answers)
    free = text.replace("Content-Security-Policy", "x-nothing")
    (tmp_path / "free.html").write_text(free, encoding="utf-8")
    browser.open(tmp_path / "free.html")
    assert browser.ask("document.title") == "owned"  # it was the policy that stopped it


# -- light, dark, paper --------------------------------------------------------------------------------------

# Every visible text against the ground it stands on, by WCAG 2.2; the least contrast, and where.
CONTRAST = r"""(() => {
  const parse = said => {
    const c = said.match(/[\d.]+/g).map(Number);
    return c.length > 3 && c[3] === 0 ? null : c.slice(0, 3);
  };
  const light = c => {
    const l = c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * l[0] + .7152 * l[1] + .0722 * l[2];
  };
  let least = [99, ''], seen = 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const at = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || at.closest('title, desc')) continue;
    const style = getComputedStyle(at), ink = parse(at.closest('svg') ? style.fill : style.color);
    let ground = null;
    for (let up = at; up && !ground; up = up.parentElement) {
      ground = parse(getComputedStyle(up).backgroundColor);
    }
    const [dim, bright] = [ink, ground || [255, 255, 255]].map(light).sort((x, y) => x - y);
    const ratio = (bright + .05) / (dim + .05);
    seen += 1;
    if (ratio < least[0]) least = [ratio, at.outerHTML.slice(0, 120)];
  }
  return {least: least[0], where: least[1], seen};
})()"""


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_light_and_dark_follow_the_reader_and_can_be_read(browser: Browser, fair: Path, mode: str) -> None:
    browser.open(fair, dark=mode == "dark")
    assert first_pixel(browser.picture()) == PALETTE[mode]["ground"]
    found = browser.ask(CONTRAST)
    assert found["seen"] > 500
    assert found["least"] >= 4.5, found


def test_paper_is_light_and_shows_what_was_closed(browser: Browser, fair: Path) -> None:
    browser.open(fair, dark=True)
    shown = "[...document.querySelectorAll('.moved:not([open]) .ranking')].map(e => e.checkVisibility())"
    before = browser.ask(shown)
    assert len(before) == 16
    assert not any(before)
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=scheme)
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    if browser.ask("CSS.supports('selector(::details-content)')"):
        tall = "[...document.querySelectorAll('.moved:not([open])')].map(e => e.offsetHeight)"
        assert min(browser.ask(tall)) > 500
    assert base64.b64decode(browser.call("Page.printToPDF")["data"]).startswith(b"%PDF")


# -- any width, any reader -----------------------------------------------------------------------------------

# What reaches over the right edge, save inside a box that scrolls by itself.
WIDE = """[...document.querySelectorAll('body *')]
  .filter(e => !e.parentElement.closest('.scroll, .bar') && !e.closest('.sr, thead'))
  .filter(e => e.getBoundingClientRect().width && e.getBoundingClientRect().right > innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("page", ["fair", "evil"])
def test_nothing_runs_over_the_edge(
    browser: Browser, page: str, width: int, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(page), width=width)
    browser.ask("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert browser.ask("innerWidth") == width
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(WIDE) == []


def test_a_page_that_is_too_wide_would_be_noticed(browser: Browser, fair: Path, tmp_path: Path) -> None:
    wide = "<main><p style='width:500px;max-width:none'>wide</p>"
    text = fair.read_text(encoding="utf-8").replace("<main>", wide)
    (tmp_path / "wide.html").write_text(text, encoding="utf-8")
    browser.open(tmp_path / "wide.html", width=360)
    assert browser.ask("document.documentElement.scrollWidth") > 360


def test_letters_in_charts_keep_their_size_on_a_phone(browser: Browser, fair: Path) -> None:
    browser.open(fair, width=360)
    size = "parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a"
    found = browser.ask(f"[...document.querySelectorAll('svg text')].map(t => {size})")
    assert len(found) > 10
    assert min(found) >= 11.9


def test_a_screen_reader_finds_names_headings_and_tables(browser: Browser, fair: Path) -> None:
    browser.open(fair)
    nodes = [n for n in browser.call("Accessibility.getFullAXTree")["nodes"] if not n.get("ignored")]

    def names(role: str) -> list[str]:
        return [n.get("name", {}).get("value", "") for n in nodes if n["role"]["value"] == role]

    assert names("RootWebArea")[0].endswith("stopgap report")
    pictures = names("image") + names("img")
    assert len(pictures) >= 4
    assert all(len(said) > 30 for said in pictures)
    assert any("95 % interval" in said for said in pictures)
    assert {"Verdict", "Numbers", "Topics that moved most"} <= set(names("heading"))
    assert len(names("table")) >= 6
    assert all(names("table"))
    assert not names("LayoutTable")
    assert {"Comparisons", "Runs"} <= set(names("region"))
    assert len(names("columnheader")) > 20
