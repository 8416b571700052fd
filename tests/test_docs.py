"""The docs say what is: pages of the command line, links, commands and the worked examples."""

from __future__ import annotations

import gzip
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.M | re.S)


@pytest.fixture
def pages_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_cli_pages", ROOT / "docs" / "make_cli_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- docs/cli -----------------------------------------------------------------------------------------------


def test_the_pages_of_the_command_line_say_what_help_says(pages_script: ModuleType) -> None:
    assert pages_script.stale(pages_script.pages()) == [], "Next: python docs/make_cli_pages.py"


def test_a_page_that_says_something_else_is_found(
    pages_script: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pages_script, "PAGES", tmp_path)
    assert pages_script.run([]) == 0
    assert pages_script.run(["--check"]) == 0
    (tmp_path / "holes.md").write_text("old")
    (tmp_path / "gone.md").write_text("a verb of the past")
    (tmp_path / "fill.md").unlink()
    capsys.readouterr()
    assert pages_script.run(["--check"]) == 1
    assert "fill.md, gone.md, holes.md" in capsys.readouterr().out
    assert pages_script.run([]) == 0
    assert pages_script.run(["--check"]) == 0


# -- links and commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    inside = [t.partition("#")[0] for t in targets if "://" not in t]
    assert [t for t in inside if t and not (page.parent / t).exists()] == []


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        if page.parent.name != "cli":
            for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
                if match := re.match(r"\s*(?:\$ )?stopgap ([a-z].*)", line):
                    yield page.relative_to(ROOT).as_posix(), shlex.split(match[1], comments=True)


@pytest.mark.parametrize(("page", "command"), list(commands()))
def test_commands_on_the_pages_exist(page: str, command: list[str]) -> None:
    from harness.cli import app

    verbs = {c.callback.__name__ for c in app.registered_commands if c.callback}
    assert command[0] in verbs
    said = (ROOT / "docs" / "cli" / f"{command[0]}.md").read_text(encoding="utf-8")
    options = {word.partition("=")[0] for word in command[1:] if word.startswith("-")}
    assert [o for o in options if not re.search(rf"^  .*{re.escape(o)}\b", said, re.M)] == []


# -- examples -----------------------------------------------------------------------------------------------

QRELS = "1 0 a 2\n1 0 b 0\n1 0 d 1\n2 0 a 0\n2 0 c 2\n2 0 b 1\n"
RUN = "".join(f"{q} Q0 {d} {r} {9 - r} one\n" for q in "12" for r, d in enumerate("acbed", start=1))
TEXTS = {
    "a": "the heron stands in the river",
    "b": "a river gauge",
    "c": "battery of the gateway is empty",
    "d": "herons and other birds",
    "e": "how to change the battery of a gateway",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples talk of, as the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one.run.gz").write_bytes(gzip.compress(RUN.encode()))
    (tmp_path / "qrels.txt").write_text(QRELS)
    folder = tmp_path / "DIR"
    folder.mkdir()
    (folder / "queries.tsv").write_text("1\theron river\n2\tempty gateway battery\n")
    (folder / "qrels.human.txt").write_text(QRELS)
    (folder / "corpus.jsonl").write_text(
        "".join(f'{{"doc_id": "{d}", "text": "{t}"}}\n' for d, t in TEXTS.items())
    )
    return tmp_path


def run_installed(code: str) -> str:
    """Run with the installed package, in the working folder; its stdout."""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("files")
def test_the_example_of_the_first_page_runs() -> None:
    (example,) = blocks("docs/index.md", "python")
    told = run_installed(example)
    assert "'pool_holes': 4" in told
    assert "'nDCG@10': " in told


def test_the_worked_labeler_gives_the_scores_it_promises(files: Path) -> None:
    (example,) = blocks("docs/writing-a-labeler.md", "python")
    assert len(example.splitlines()) <= 30
    (files / "overlap.py").write_text(example)
    told = run_installed(
        "import harness\n"
        "from harness.labeling import load, signals\n"
        "collection = harness.open_collection('DIR')\n"
        "ids = collection.qrels().select('query_id', 'doc_id')\n"
        "ids = ids.vstack(ids[:1].with_columns(doc_id='query_id'))\n"
        "found = signals(load('overlap:Overlap', collection.grades), collection.pairs(ids))\n"
        "found.select('query_id', 'doc_id', 'score', 'labeler', 'reason').write_csv('scores.csv')\n"
    )
    assert told == ""
    found = pl.read_csv(files / "scores.csv", schema_overrides={"query_id": pl.String})
    assert found["score"].to_list() == pytest.approx([1.0, 0.5, 0.0, 0.0, 1.0, 0.0, None])
    assert found["reason"].to_list() == [None] * 6 + ["no text"]
    assert found["labeler"].str.starts_with("overlap@").all()


@pytest.mark.usefixtures("files")
def test_the_settings_the_prompt_and_the_server_on_the_page_of_labelers_can_be_used(files: Path) -> None:
    (prompt,) = (b for b in blocks("docs/labelers.md", "text") if "---" in b)
    settings, prices, cascade, ensemble = blocks("docs/labelers.md", "toml")
    (server,) = blocks("docs/labelers.md", "python")
    (files / "mine.txt").write_text(prompt)
    (files / "judge.toml").write_text(settings + 'prices = "prices.toml"\n')
    (files / "prices.toml").write_text(prices.replace("some-model", "Qwen/Qwen2.5-7B-Instruct"))
    (files / "two.toml").write_text(cascade.replace('"minilm"', '"constant:1"'))
    (files / "three.toml").write_text(ensemble.replace("hf:./one", "constant:1").replace("MODEL@URL", "m"))
    told = run_installed(
        "from harness.labeling import label_id, load\n"
        "grades = {0: 'no', 1: 'yes'}\n"
        "servers = ['openai:judge.toml', 'openai:m?prompt=./mine.txt']\n"
        "for spec in (*servers, 'cascade:two.toml', 'ensemble:three.toml'):\n"
        "    print(label_id(load(spec, grades)))\n" + server
    )
    names = ["Qwen2.5-7B-Instruct", "m", r"cascade\+constant\+Qwen2.5-7B-Instruct", r"ensemble\+constant\+m"]
    lines = [*(rf"{name}@\w{{8}}" for name in names), r"--labeler openai:any@http://\S+/v1", ""]
    assert re.fullmatch("\n".join(lines), told)


def test_the_worked_labeler_fills(files: Path) -> None:
    pytest.importorskip("deltalake")
    (example,) = blocks("docs/writing-a-labeler.md", "python")
    (files / "overlap.py").write_text(example)
    (command,) = re.findall(
        r"^\$ stopgap (.*)$", "".join(blocks("docs/writing-a-labeler.md", "console")), re.M
    )
    run_installed(f"from harness.cli import main; import sys; sys.exit(main({shlex.split(command)}))")
    rows = [line.split() for line in (files / "filled.qrels").read_text().splitlines()]
    assert sorted((q, d) for q, mark, d, _ in rows if mark == "1") == [
        ("1", "c"),
        ("1", "e"),
        ("2", "d"),
        ("2", "e"),
    ]
    assert {" ".join(row) for row in rows if row[1] == "0"} == set(QRELS.splitlines())
