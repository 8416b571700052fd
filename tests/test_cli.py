"""The command line: what it prints where, its exit codes, and that bad input never ends in a traceback."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness import _render, cli
from harness.errors import InputError, StopgapWarning

QRELS = "1 0 a 2\n1 0 b 0\n1 0 d 1\n2 0 a 0\n2 0 c 2\n"
ONE = "".join(f"{q} Q0 {d} {r} {9 - r} one\n" for q in "12" for r, d in enumerate("acbed", start=1))
TWO = "".join(f"1 Q0 {d} {r} {9 - r} two\n" for r, d in enumerate("bad", start=1))
VERBS = ["demo", "collections", "labelers", "lint", "retrieve", "holes", "fill", "measure", "compare", "plan"]
VERBS += ["agree", "simulate", "estimate", "diagnose", "distill", "gate", "report"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "qrels.txt").write_text(QRELS)
    (tmp_path / "one.run.gz").write_bytes(gzip.compress(ONE.encode()))
    (tmp_path / "two.run").write_text(TWO)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of a command."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        return code, *capsys.readouterr()

    return call


def installed(*arguments: str, code: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; `code` runs first."""
    start = f"import sys\n{code}\nfrom harness.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", start, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **more},
    )


# -- help ---------------------------------------------------------------------------------------------------


def test_help_names_every_verb_and_the_exit_codes(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert re.findall(r"^  (\w+) +[A-Z]", out.partition("Options:")[0], re.M) == VERBS
    assert re.search(r"4  finished, but some pairs got no label", out)
    assert run("-h") == (0, out, "")


def test_no_verb_shows_the_help(run: Run) -> None:
    code, out, err = run()
    assert code == 2
    assert out + err == run("--help")[1]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(run: Run, verb: str) -> None:
    code, out, err = run(verb, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: stopgap {verb} ")
    command = next(c for c in cli.app.registered_commands if c.callback and c.callback.__name__ == verb)
    assert command.callback is not None
    (line,) = (command.callback.__doc__ or "").splitlines()
    assert line.endswith(".")
    assert line in out
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize("columns", ["60", "72", "300"])
def test_help_fits_the_terminal(run: Run, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = run("fill", "--help")[1].partition("A judgment is never")[0]
    assert max(map(len, out.splitlines())) <= min(int(columns), 100)
    assert re.search(r"^  --ledger DIR ", out, re.M)


def test_the_usage_line_says_what_is_needed(run: Run) -> None:
    out = run("fill", "--help")[1]
    usage = re.sub(r"\s+", " ", out.partition("\n\n")[0])
    assert usage.startswith(
        "Usage: stopgap fill RUN... --qrels Q --collection C --labeler L --out F [--depth K] "
    )


def test_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"stopgap \d+\.\d+\.\d+\S*\n", out)


# -- results ------------------------------------------------------------------------------------------------


def test_holes_shows_runs_and_pool(run: Run) -> None:
    code, out, err = run("holes", "one.run.gz", "two.run", "--qrels", "qrels.txt", "--depth", "3")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "run  judged@3  holes",
        "one    0.6667      2",
        "two    0.5000      0",
        "",
        "Pool to depth 3: 7 pairs, 2 holes (28.6 %).",
        "1 topic of the qrels not in two: it counts 0 there.",
    ]


def test_holes_json_has_the_keys_that_scripts_rely_on(run: Run) -> None:
    code, out, _ = run("holes", "one.run.gz", "--qrels", "qrels.txt", "--depth", "2", "--json")
    found = json.loads(out)
    assert code == 0
    assert {k: found[k] for k in ("depth", "pool", "pool_holes")} == {"depth": 2, "pool": 4, "pool_holes": 1}
    assert found["runs"]["one"]["judged"] == pytest.approx(0.75)
    assert found["runs"]["one"]["holes"] == 1


def test_patterns_that_the_shell_left_alone_are_expanded(run: Run) -> None:
    assert run("holes", "*.run*", "--qrels", "qrels.txt") == run(
        "holes", "one.run.gz", "two.run", "--qrels", "qrels.txt"
    )
    code, _, err = run("lint", "no*.run")
    assert code == 2
    assert "no*.run: no file fits" in err


def test_measure_shows_the_best_run_first_and_what_it_rests_on(run: Run, folder: Path) -> None:
    (folder / "filled.qrels").write_text(QRELS + "1 1 c 2\n")
    code, out, err = run(
        "measure", "two.run", "one.run.gz", "--qrels", "filled.qrels", "-m", "P@2", "-m", "AP"
    )
    assert (code, err) == (0, "")
    table, notes = (part.splitlines() for part in out.strip().split("\n\n"))
    assert [line.split() for line in table] == [
        ["run", "P@2", "by_labels", "AP", "by_labels", "judged@2", "labeled_share"],
        ["one", "0.7500", "0.3333", "0.6833", "0.2927", "1.0000", "0.2500"],
        ["two", "0.2500", "0.0000", "0.1944", "0.0000", "0.5000", "0.0000"],
    ]
    assert notes[0] == "Means over 2 topics."
    assert notes[1].startswith("by_labels: ")
    assert notes[2] == "1 topic of the qrels not in two: it counts 0 there."


def test_measure_json_and_table_have_the_same_numbers(run: Run) -> None:
    arguments = ["measure", "one.run.gz", "--qrels", "qrels.txt", "-m", "nDCG@3", "-m", "RR", "--per-topic"]
    found = json.loads(run(*arguments, "--json")[1])
    assert set(found) == {"runs", "per_topic"}
    one = found["runs"]["one"]
    assert {"nDCG@3", "RR", "judged@3", "labeled_share", "topics"} <= set(one)
    out = run(*arguments)[1]
    for key in ("nDCG@3", "RR", "judged@3"):
        assert f" {one[key]:.4f}" in out.split("\n\n")[1]
    for row in found["per_topic"]:
        assert re.search(rf"^one +{row['query_id']} +{row['measure']} +{row['value']:.4f}$", out, re.M)


def test_measure_without_a_measure_takes_ndcg_at_10(run: Run) -> None:
    assert run("measure", "one.run.gz", "--qrels", "qrels.txt")[1].split()[1] == "nDCG@10"


def test_lint_names_file_line_and_exits_2_on_errors_only(run: Run, folder: Path) -> None:
    (folder / "bad.run").write_text("1 Q0 a 1 0.5 t\n1 Q0 b 2 oops t\n")
    code, out, err = run("lint", "bad.run")
    assert (code, err) == (2, "")
    assert re.search(r"^bad\.run:2: error: .*oops.* \[score\]$", out, re.M)
    assert out.splitlines()[-1] == "1 file: 1 error, 0 warnings"
    (folder / "odd.run").write_text("1 Q0 a 2 0.5 t\n1 Q0 b 1 0.4 t\n")
    code, out, _ = run("lint", "odd.run")
    assert code == 0
    assert "warning" in out
    found = json.loads(run("lint", "bad.run", "odd.run", "--json")[1])
    assert found["errors"] == 1
    assert found["warnings"] >= 1
    assert {"file", "line", "level", "code", "message"} == set(found["problems"][0])


def test_lint_of_good_files_says_so(run: Run) -> None:
    assert run("lint", "qrels.txt") == (0, "1 file: 0 errors, 0 warnings\n", "")


def test_collections_and_labelers_are_listed(run: Run) -> None:
    assert re.search(r"^demo  ", run("collections")[1], re.M)
    listed = json.loads(run("labelers", "--json")[1])["labelers"]
    assert {"constant", "lookup", "minilm"} <= {entry["name"] for entry in listed}
    assert re.search(r"^minilm +(yes|no: pip install 'stopgap\[slm\]') ", run("labelers")[1], re.M)


# -- fill ---------------------------------------------------------------------------------------------------

LABELS = "1 1 c 2\n1 1 e 0\n2 1 b 0\n2 1 d 0\n2 1 e 1\n"
FILL = ["fill", "one.run.gz", "two.run", "--qrels", "qrels.txt", "--collection", "C", "--depth", "5"]


@pytest.fixture
def collection(folder: Path) -> Path:
    (folder / "C").mkdir()
    (folder / "C" / "queries.tsv").write_text("1\tq\n2\tr\n")
    (folder / "C" / "qrels.human.txt").write_text(QRELS)
    (folder / "C" / "corpus.jsonl").write_text(
        "".join(f'{{"doc_id": "{d}", "text": "t {d}"}}\n' for d in "abcde")
    )
    (folder / "labels.txt").write_text(
        LABELS + "".join(QRELS.replace(" 0 ", " 1 ").splitlines(keepends=True))
    )
    return folder / "C"


@pytest.mark.usefixtures("collection")
def test_fill_writes_who_judged_what_and_tells_what_it_did(run: Run, folder: Path) -> None:
    code, out, err = run(*FILL, "--labeler", "lookup:labels.txt", "--out", "filled.qrels")
    assert (code, err) == (0, "")
    assert "Labeled: 5. Without a label: 0." in out
    assert "Written: filled.qrels. Next: stopgap measure RUN... --qrels filled.qrels" in out
    lines = (folder / "filled.qrels").read_text().splitlines()
    assert {line for line in lines if line.split()[1] == "0"} == set(QRELS.splitlines())
    assert sorted(line.split()[::2][0] + line.split()[2] for line in lines if line.split()[1] == "1") == [
        "1c",
        "1e",
        "2b",
        "2d",
        "2e",
    ]
    assert (folder / "filled.qrels.parquet").exists()
    assert (
        json.loads(run("holes", "*.run*", "--qrels", "filled.qrels", "--depth", "5", "--json")[1])[
            "pool_holes"
        ]
        == 0
    )


@pytest.mark.usefixtures("collection")
def test_fill_exits_4_and_counts_reasons_when_pairs_stay_holes(run: Run, folder: Path) -> None:
    (folder / "labels.txt").write_text((folder / "labels.txt").read_text().replace("2 1 e 1\n", ""))
    code, out, _ = run(*FILL, "--labeler", "lookup:labels.txt", "--out", "filled.qrels")
    assert code == 4
    assert "Without a label: 1 (1 not in labels.txt)." in out
    code, out, _ = run(*FILL, "--labeler", "lookup:labels.txt", "--out", "filled.qrels", "--json")
    assert code == 4
    summary = json.loads(out)
    assert summary["unlabeled"] == {"not in labels.txt": 1}
    assert (summary["holes"], summary["labeled"], summary["out"]) == (5, 4, "filled.qrels")


@pytest.mark.usefixtures("collection")
def test_ctrl_c_in_fill_says_how_to_go_on_and_writes_nothing(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import harness.fill

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(harness.fill, "fill", stopped)
    code, out, err = run(*FILL, "--labeler", "lookup:labels.txt", "--out", "filled.qrels", "--ledger", "L")
    assert (code, out) == (130, "")
    assert "kept in L; the same command goes on" in err
    assert not (folder / "filled.qrels").exists()


# -- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["holes", "one.run.gz"], "Missing option '--qrels'"),
        (["hole", "one.run.gz"], "Did you mean 'holes'"),
        (["holes", "nowhere.run", "--qrels", "qrels.txt"], "nowhere.run"),
        (["holes", "one.run.gz", "--qrels", "one.run.gz"], "one.run.gz:1"),
        (["holes", "qrels.txt", "--qrels", "qrels.txt"], "qrels.txt:1"),
        (["holes", "one.run.gz", "--qrels", "qrels.txt", "--depth", "0"], "--depth"),
        (["holes", ".", "--qrels", "qrels.txt"], "folder"),
        (["measure", "one.run.gz", "--qrels", "qrels.txt", "-m", "nDGC@10"], "nDCG"),
        (["measure", "one.run.gz", "--qrels", "empty.txt"], "empty.txt"),
        (["measure", "cut.run.gz", "--qrels", "qrels.txt"], "cut.run.gz"),
        (
            [
                "fill",
                "one.run.gz",
                "--qrels",
                "qrels.txt",
                "--labeler",
                "x",
                "--collection",
                "x",
                "--out",
                "no/f",
            ],
            "no/f",
        ),
        (
            [
                "fill",
                "one.run.gz",
                "--qrels",
                "qrels.txt",
                "--labeler",
                "x",
                "--collection",
                "x",
                "--out",
                "qrels.txt",
            ],
            "write to another name",
        ),
        (
            [
                "fill",
                "one.run.gz",
                "--qrels",
                "qrels.txt",
                "--labeler",
                "x",
                "--collection",
                "x",
                "--out",
                "f",
            ],
            "'x'",
        ),
        (["retrieve", "nowhere", "bm25", "--out", "runs"], "'nowhere'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_message_on_stderr_and_exit_2(
    run: Run, folder: Path, arguments: list[str], said: str
) -> None:
    (folder / "empty.txt").write_text("")
    (folder / "cut.run.gz").write_bytes(gzip.compress(ONE.encode() * 50)[:-20])
    before = sorted(folder.rglob("*"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Error: " in err
    assert "did not foresee" not in err
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before, "something half-made was left"


def test_what_nobody_foresaw_is_a_message_too(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    import harness.pool

    def broken(*_: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(harness.pool, "summary", broken)
    code, out, err = run("holes", "one.run.gz", "--qrels", "qrels.txt")
    assert (code, out) == (2, "")
    assert err.startswith("Error: KeyError: 'surprise'\n")
    monkeypatch.setenv("STOPGAP_TRACEBACK", "1")
    with pytest.raises(KeyError):
        cli.main(["holes", "one.run.gz", "--qrels", "qrels.txt"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "filled.qrels"), "filled.qrels: No space left on device"),
        (MemoryError(), "out of memory"),
        (InputError("a.run", 3, "five columns", "Next: look"), "a.run:3: five columns\nNext: look"),
    ],
)
def test_errors_of_the_machine_and_ours_are_told_plainly(
    monkeypatch: pytest.MonkeyPatch, run: Run, error: Exception, message: str
) -> None:
    import harness.trec

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(harness.trec, "read_runs", failing)
    assert run("holes", "one.run.gz", "--qrels", "qrels.txt") == (2, "", f"Error: {message}\n")


def test_our_warnings_are_lines_on_stderr_and_others_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    import warnings

    import harness.pool

    def warned(*_: object) -> dict[str, object]:
        warnings.warn("look here", StopgapWarning, stacklevel=1)
        warnings.warn("look here", StopgapWarning, stacklevel=1)
        warnings.warn("a library's own affair", DeprecationWarning, stacklevel=1)
        return {"depth": 1, "runs": {}, "pool": 0, "pool_holes": 0}

    monkeypatch.setattr(harness.pool, "summary", warned)
    code, out, err = run("holes", "one.run.gz", "--qrels", "qrels.txt", "--json")
    assert code == 0
    assert json.loads(out)["pool"] == 0
    assert err == "Warning: look here\n" * 2


def test_ctrl_c_ends_with_130_and_says_how_to_go_on() -> None:
    stop = "import harness.trec\ndef stopped(*_): raise KeyboardInterrupt\nharness.trec.read_runs = stopped"
    done = installed("holes", "one.run.gz", "--qrels", "qrels.txt", code=stop)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code = "import sys; from harness.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "holes", "one.run.gz", "--qrels", "qrels.txt"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


# -- terminal -----------------------------------------------------------------------------------------------


def in_terminal(*arguments: str, columns: int = 60) -> str:
    """What a person sees: stdout and stderr are a terminal."""
    parent, child = pty.openpty()
    code = "import sys; from harness.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
    )
    os.close(child)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so when the other side is closed
        while block := os.read(parent, 65536):
            shown += block
    process.wait()
    os.close(parent)
    return shown.decode()


def test_on_a_terminal_a_long_table_wraps_and_loses_nothing(folder: Path) -> None:
    name = "a-system-whose-name-is-longer-than-the-terminal-is-wide-and-that-goes-on"
    (folder / f"{name}.run").write_text(TWO)
    shown = in_terminal("holes", f"{name}.run", "--qrels", "qrels.txt")
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\r", "")
    plain = plain.partition("\n\n")[0]
    assert max(map(len, plain.splitlines())) <= 60
    assert name in "".join(line[:40].split(" ")[0] for line in plain.splitlines())
    assert "0.5000" in plain


def test_a_piped_table_is_one_line_a_row_whatever_the_width(run: Run, folder: Path) -> None:
    name = "x" * 150
    (folder / f"{name}.run").write_text(TWO)
    out = run("holes", f"{name}.run", "--qrels", "qrels.txt")[1]
    assert f"{name}     0.5000      0\n" in out


# -- the base install ---------------------------------------------------------------------------------------

HEAVY = ["deltalake", "ir_datasets", "onnxruntime", "pyterrier", "pyterrier_pisa", "tokenizers", "torch"]


def without(*packages: str) -> str:
    return f"sys.modules.update(dict.fromkeys({list(packages)!r}))"


@pytest.mark.skipif("STOPGAP_LEAN" not in os.environ, reason="for the tox environment without extras")
def test_the_lean_environment_is_lean() -> None:
    assert [p for p in [*HEAVY, "pandas"] if find_spec(p)] == []


def test_the_base_install_is_enough_to_lint_count_and_measure() -> None:
    commands = [
        "lint one.run.gz --qrels qrels.txt",
        "holes one.run.gz --qrels qrels.txt",
        "measure one.run.gz --qrels qrels.txt -m nDCG@10 -m ERR@10 -m SetP",
        "collections",
        "labelers",
    ]
    calls = f"{without(*HEAVY, 'pandas')}\nfrom harness.cli import main\n"
    calls += f"for c in {commands}:\n    assert main(c.split()) == 0, c"
    done = installed("--version", code=calls)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(said in done.stdout for said in ("0 errors", "Pool to depth", "ERR@10", "demo ", "minilm "))


@pytest.mark.parametrize(
    ("arguments", "missing", "extra"),
    [
        (["retrieve", "C", "bm25", "--out", "o"], ["pyterrier"], "retrieve"),
        (["retrieve", "irds:vaswani", "bm25", "--out", "o"], ["ir_datasets"], "retrieve"),
        (
            [
                "fill",
                "one.run.gz",
                "--qrels",
                "qrels.txt",
                "--collection",
                "C",
                "--labeler",
                "minilm",
                "--out",
                "f",
            ],
            ["onnxruntime", "tokenizers"],
            "slm",
        ),
    ],
)
@pytest.mark.usefixtures("collection")
def test_a_missing_extra_says_its_pip_line(arguments: list[str], missing: list[str], extra: str) -> None:
    done = installed(*arguments, code=without(*missing))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'stopgap[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verb_imports_only_what_it_needs() -> None:
    heavy = [*HEAVY, "pydantic", "rich", "scipy", "sklearn", "pandas", "ir_measures"]
    told = f"import atexit\natexit.register(lambda: print({{*sys.modules}} & {{*{heavy}}}, file=sys.stderr))"
    done = installed("measure", "one.run.gz", "--qrels", "qrels.txt", code=told)
    assert (done.returncode, done.stderr) == (0, "set()\n")


# -- shapes -------------------------------------------------------------------------------------------------


def test_json_has_null_for_what_is_no_number() -> None:
    text = _render.as_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": (None, "ü")})
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": [None, "ü"]}
    assert "ü" in text


def test_a_table_sets_numbers_right_and_leaves_out_what_is_not_there() -> None:
    rows = [["one", 3, None, 0.5], ["two\nlines", 12, None, float("nan")]]
    assert _render.plain_table(["name", "n", "x", "y"], rows).splitlines() == [
        "name        n  x       y",
        "one         3     0.5000",
        "two lines  12",
    ]
    assert _render.plain_table(["id", "d"], [["07", "+0.5"], ["7", "-0.25"]]).splitlines() == [
        "id      d",
        "07   +0.5",
        "7   -0.25",
    ]
    assert _render.plain_table(["name"], []) == "name"


@pytest.mark.parametrize(
    ("part", "whole", "said"), [(1, 8, "12.5 %"), (0, 8, "0 %"), (0, 0, "0 %"), (8, 8, "100.0 %")]
)
def test_shares_in_words(part: int, whole: int, said: str) -> None:
    assert _render.share(part, whole) == said


@pytest.mark.parametrize(
    ("done", "total", "speed", "said"),
    [
        (0, 100, 0.0, ""),
        (50, None, 1234.5, "1,234 a second"),
        (100, 7300, 72.0, "72 a second, 0:01:40 left"),
        (1, 3, 0.5, "30 a minute, 0:00:04 left"),
    ],
)
def test_the_pace_of_the_work(done: int, total: int | None, speed: float, said: str) -> None:
    assert _render.pace(done, total, speed) == said
