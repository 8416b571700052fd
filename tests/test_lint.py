"""Every problem of a file, with its line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from harness import trec
from harness.errors import InputError, UsageError
from harness.lint import PROBLEMS, lint

CLEAN_RUN = "q1 Q0 d2 1 9 t\nq1 Q0 d1 2 8 t\nq2 Q0 d3 1 5 t\n"
CLEAN_QRELS = "q1 0 d1 1\nq1 0 d2 0\nq2 0 d3 1\n"


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def put(data: str | bytes, name: str = "a.run") -> Path:
        path = tmp_path / name
        data = data if isinstance(data, bytes) else data.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return put


def found(problems: pl.DataFrame, code: str | None = None) -> list[tuple[int | None, str, str]]:
    rows = problems.select("line", "level", "code").rows()
    return [r for r in rows if code is None or r[2] == code]


def test_clean_files_have_no_problems(put):
    problems = lint([put(CLEAN_RUN), put(CLEAN_QRELS, "q.txt"), put(CLEAN_RUN, "b.run.gz")])
    assert problems.height == 0
    assert problems.schema == PROBLEMS


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("q1 Q0 d9 2 8", "columns", "5 columns, a run line has 6"),
        ("q1", "columns", "1 column"),
        ("q1 Q0 d9 2 high t", "score", "'high', not a number"),
        ("q1 Q0 d9 2 NaN t", "score", "'NaN' is not a finite number"),
        ("q1 Q0 d9 2 inf t", "score", "'inf' is not a finite number"),
        ("q1 Q0 d\x009 2 8 t", "control", "0x00"),
        ("q1 Q0 d9 2 8 t\rq1", "line-end", "carriage return inside"),
        ("#q1 Q0 d9 2 8 t", "comment", "taken for a comment"),
        ("q1 Q0 d2 7 1 t", "duplicate", "document 'd2' of topic 'q1' stands in line 1 already"),
    ],
)
def test_errors_of_run_lines_all_of_them(put, line, code, words):
    """Three bad lines, the last of the same sort as the first: reading stops at the first, lint at none."""
    path = put(f"q1 Q0 d2 1 9 t\n{line}\nq2 Q0 x 1 5 t\nq2 Q0\n{line}\n")
    errors = lint([path]).filter(level="error")
    assert [(n, c) for n, _, c in found(errors)] == [(2, code), (4, "columns"), (5, code)]
    assert words in errors["message"][0]
    with pytest.raises(InputError) as caught:
        trec.read_run(path)
    assert caught.value.line == 2


def test_bytes_that_are_not_utf8(put):
    problems = lint([put(b"q1 Q0 d1 1 9 t\nq1 Q0 d\xe9 2 8 t\n")])
    assert found(problems) == [(2, "error", "encoding")]


@pytest.mark.parametrize(
    ("text", "line", "code"),
    [
        ("q Q0 a 1 9 t\nq Q0 b 2 9.5 t\n", 2, "rank"),
        ("q Q0 a 2 9 t\nq Q0 b 1 8 t\n", 1, "rank"),
        ("q Q0 a 1 9 t\nq Q0 b - 8 t\n", 2, "rank"),
        ("q Q0 c 1 9 t\nq Q0 b 2 8 t\nq Q0 a 3 8 t\n", 2, "tie"),
        ("q Q0 b 1 7.00000001 t\nq Q0 a 2 7.00000002 t\n", 2, "near-tie"),
        ("q Q0 a 1 9 t\nq Q0 b 2 8 u\nq Q0 c 3 7 v\n", 2, "tag"),
        ("q Q0 a 1 9 my tag\nq Q0 b 2 8 my tag\n", 1, "tag"),
        ("q Q0 a 1 9 t\nr Q0 b 1 8 t\nq Q0 c 2 7 t\n", 3, "scattered"),
        ("q Q0 a 1 9 t\nq Q0 b  2 8 t\n", 2, "white-space"),
        ("q Q0 a 1 9 t\nq Q0 b\t2 8 t\n", 2, "white-space"),
        ("q Q0 a 1 9 t\n q Q0 b 2 8 t\n", 2, "white-space"),
        ("q Q0 a 1 9 t\nq Q0 b 2 8 t \n", 2, "white-space"),
        ("q Q0 a 1 9 t\nq Q0 b 2 8 t\r\n", 2, "line-end"),
        ("q Q0 a 1 9 t\n\nq Q0 b 2 8 t\n", 2, "blank"),
        ("# ir_metadata.start\nq Q0 a 1 9 t\n", 1, "header"),
        ("\ufeffq Q0 a 1 9 t\n", 1, "byte-order-mark"),
        ("q Q0 a 1 9 t\nq Q0 文\u00a0書 2 8 t\n", 2, "space-in-id"),
    ],
)
def test_warnings_of_runs(put, text, line, code):
    """Reading takes the file as it is; lint has exactly this to say."""
    path = put(text)
    assert found(lint([path])) == [(line, "warning", code)]
    trec.read_run(path)


def test_ranks_and_scores_that_agree_are_fine(put):
    zero_based = "q Q0 a 0 9 t\nq Q0 b 1 8 t\n"
    backwards = "q Q0 b 2 8 t\nq Q0 a 1 9 t\n"
    tied_ranks = "q Q0 b 1 8 t\nq Q0 a 1 9 t\n"
    float_tie = "q Q0 b 1 7.00000002 t\nq Q0 a 2 7.00000001 t\n"
    for text in (zero_based, backwards, tied_ranks, float_tie):
        assert found(lint([put(text)])) == []


def test_one_warning_stands_for_all_of_a_topic(put):
    text = "".join(f"q Q0 d{i:02d} {i} {i}.5 t\n" for i in range(1, 31))
    (only,) = lint([put(text)]).to_dicts()
    assert (only["line"], only["code"]) == (2, "rank")
    assert "and 28 more" in only["message"]


def test_warnings_of_qrels(put):
    path = put("q 0 a 1\nq 0 b -2\nq 0 a 1\nq 0 c -1\nq 3 d 0\n", "q.txt")
    problems = lint([path])
    assert found(problems) == [
        (2, "warning", "negative-grade"),
        (3, "warning", "repeated"),
        (5, "warning", "mark"),
    ]


def test_errors_of_qrels(put):
    path = put("q 0 a 1\nq 0 b 1.5\nq 0 a 2\nq 0 c\nq 1 a 1\nq 0 d 99999\n", "q.txt")
    assert found(lint([path])) == [
        (2, "error", "grade"),
        (3, "error", "conflict"),
        (4, "error", "columns"),
        (5, "error", "conflict"),
        (6, "error", "grade"),
    ]


def test_topics_without_qrels_and_the_reverse(put):
    run = put("q1 Q0 a 1 9 t\nq5 Q0 a 1 9 t\nq5 Q0 b 2 8 t\n")
    qrels = put("q1 0 a 1\nq2 0 a 1\nq3 0 a 0\n", "q.txt")
    expected = [
        (None, "warning", "topic-missing"),
        (None, "warning", "topic-missing"),
        (2, "warning", "topic-without-qrels"),
    ]
    assert found(lint([run], qrels)) == expected
    assert found(lint([run, qrels])) == expected  # the one qrels among the files
    assert found(lint([run, qrels], qrels)) == expected  # named twice, examined once
    messages = lint([run], qrels)["message"]
    assert [next(q for q in ("q2", "q3", "q5") if repr(q) in m) for m in messages] == ["q2", "q3", "q5"]
    assert found(lint([run])) == []


def test_two_qrels_are_not_guessed_between(put):
    files = [put(CLEAN_RUN), put("q1 0 a 1\n", "p.txt"), put("q1 0 a 2\n", "q.txt")]
    assert found(lint(files)) == []


def test_an_archive_cut_off_tells_what_it_holds_until_then(put):
    text = "".join(f"q{i} Q0 {i * i % 9973} 1 {'x' if i == 7 else i} t\n" for i in range(60_000))
    path = put(text, "a.run.gz")
    path.write_bytes(path.read_bytes()[:-40])
    problems = lint([path])
    assert (None, "error", "unreadable") in found(problems)
    assert "cut off" in problems["message"][0]


@pytest.mark.parametrize("name", ["a.run", "a.run.gz", "a.parquet"])
def test_files_that_cannot_be_read_do_not_stop_the_others(put, tmp_path, name):
    empty = put("", name)
    good = put("q Q0 a 1 9 t\nq Q0 b 2 9 t\n", "z.run")
    problems = lint([tmp_path / "none.run", empty, good])
    assert problems.filter(level="error")["code"].to_list() == ["unreadable", "unreadable"]
    assert found(problems.filter(file=str(good))) == [(1, "warning", "tie")]


def test_only_comments_is_an_error(put):
    assert found(lint([put("# nothing\n")])) == [(None, "error", "unreadable"), (1, "warning", "header")]


def test_a_file_is_told_by_its_lines_or_by_word(put):
    odd_run = put("bad\n" + CLEAN_RUN, "odd.txt")
    assert found(lint([odd_run])) == [(1, "error", "columns")]
    four = put("q1 Q0 d1 1\n", "four")
    assert found(lint([four])) == []
    assert found(lint([four], kind="run")) == [(1, "error", "columns")]
    with pytest.raises(UsageError, match="run or qrels"):
        lint([four], kind="corpus")


def test_a_twin_of_another_text(put):
    path = put(CLEAN_QRELS, "q.txt")
    qrels = trec.read_qrels(path).with_columns(note=pl.lit("x"))
    trec.write_qrels(qrels, path)
    assert found(lint([path])) == []
    path.write_text(CLEAN_QRELS + "q3 0 d 1\n")
    assert found(lint([path])) == [(None, "warning", "twin")]


def test_parquet_has_rows_for_lines(tmp_path):
    run = {
        "query_id": ["q", "q", "q", None],
        "doc_id": ["a", "a", "b", "c"],
        "score": [1.0, 2, float("inf"), 3],
    }
    pl.DataFrame(run).write_parquet(tmp_path / "a.parquet")
    qrels = {"query_id": ["q", "q"], "doc_id": ["a", "a"], "relevance": [1, 2]}
    pl.DataFrame(qrels).write_parquet(tmp_path / "q.parquet")
    problems = lint([tmp_path / "q.parquet", tmp_path / "a.parquet"])
    assert problems.select(pl.col("file").str.tail(9), "line", "code").rows() == [
        ("a.parquet", 2, "duplicate"),
        ("a.parquet", 3, "score"),
        ("a.parquet", 4, "null"),
        ("q.parquet", 2, "conflict"),
    ]


def test_sorted_by_file_then_line(put):
    bad = "q Q0 a 1 x t\n\nq Q0 b 1 y t\n"
    problems = lint([put(bad, "b.run"), put(bad, "a.run")], kind="run")
    order = problems.select("file", pl.col("line").fill_null(0))
    assert order.equals(order.sort("file", "line"))
    assert order["file"].is_sorted()


def test_lint_and_reading_agree_on_what_is_an_error(put):
    """A file has an error exactly if reading it fails, at the first error's line."""
    pieces = [
        "q Q0 a 1 9 t",
        "q Q0 b 2 8 my tag",
        "q Q0 a 3 7 t",
        "q Q0 c 4 nan t",
        "",
        "# x",
        "q Q0 d\t5 6 t",
        "q x",
    ]
    for first in pieces:
        for second in pieces:
            path = put(f"r Q0 z 1 1 t\n{first}\n{second}\n")
            errors = lint([path], kind="run").filter(level="error")
            if errors.height:
                with pytest.raises(InputError) as caught:
                    trec.read_run(path)
                assert caught.value.line == errors["line"][0]
            else:
                trec.read_run(path)
