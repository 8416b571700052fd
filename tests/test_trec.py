"""Reading and writing runs and qrels."""

from __future__ import annotations

import gzip
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from harness import trec, trec_bytes, trec_lines, trec_read
from harness.errors import InputError, SchemaError, StopgapWarning, UsageError
from harness.frames import QRELS, RUN
from harness.ranking import rank

RUN_TEXT = b"q1 Q0 d2 1 9 t\nq1 Q0 d1 2 8.5 t\nq2 Q0 d3 1 5 t\n"
ROWS = [("q1", "d2", 9.0, 0), ("q1", "d1", 8.5, 1), ("q2", "d3", 5.0, 0)]
QRELS_TEXT = b"q1 0 d1 1\nq1 0 d2 0\nq2 1 d3 -1\n"
SUFFIXES = ["", ".gz", ".zst"]

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pack(data: bytes, suffix: str) -> bytes:
    return {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix](data)


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def put(data: bytes, name: str = "a.run") -> Path:
        path = tmp_path / name
        path.write_bytes(pack(data, path.suffix if path.suffix in SUFFIXES else ""))
        return path

    return put


def fails(read: Callable[[Path], object], path: Path, line: int | None, words: str) -> None:
    """Reading raises at that line, with those words, and the message begins file:line."""
    with pytest.raises(InputError, match=words) as caught:
        read(path)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")


def blocks(path: Path) -> pl.DataFrame:
    return pl.concat(trec.run_blocks(path))


# ------------------------------------------------------------------------------------------------ runs


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "data",
    [
        RUN_TEXT,
        RUN_TEXT[:-1],
        RUN_TEXT.replace(b" ", b"\t"),
        RUN_TEXT.replace(b" ", b"  "),
        RUN_TEXT.replace(b"d1 2", b"d1  2"),
        RUN_TEXT.replace(b"q1", b" q1"),
        RUN_TEXT.replace(b" t\n", b" t \n"),
        RUN_TEXT.replace(b"\n", b"\r\n"),
        RUN_TEXT.replace(b"\n", b"\n\n"),
        b"\n" + RUN_TEXT,
        b"\xef\xbb\xbf" + RUN_TEXT,
        b"# ir_metadata.start\n# tag: t\n# ir_metadata.end\n" + RUN_TEXT,
        RUN_TEXT + b"  # a word\n#\n",
        RUN_TEXT.replace(b" t\n", b" my own tag\n"),
        RUN_TEXT.replace(b"q1 Q0 d2 1 9 t", b"q1\vQ0\fd2 - 9 t"),
        b"\xef\xbb\xbf# x\r\n" + RUN_TEXT.replace(b" ", b" \t ").replace(b"\n", b"  \r\n"),
    ],
    ids=[
        "plain",
        "no last newline",
        "tabs",
        "double spaces",
        "one double space",
        "leading spaces",
        "trailing spaces",
        "CRLF",
        "blank lines",
        "first line blank",
        "byte order mark",
        "header",
        "comments at the end",
        "tag with spaces",
        "odd white space, no rank",
        "everything",
    ],
)
def test_odd_bytes_are_read_right(put, data, suffix):
    path = put(data, f"a.run{suffix}")
    run = trec.read_run(path)
    assert run.rows() == ROWS
    assert run.schema == RUN
    assert_frame_equal(blocks(path), run)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"q1 Q0 d1 2 8", "5 columns, a run line has 6 .the tag is missing"),
        (b"q1 0 d1 2", "4 columns, a run line has 6 .is this a qrels"),
        (b"q1", "1 column, a run line has 6"),
        (b"q1  d1 2 8 t", "5 columns"),
        (b"q1 Q0 d1  8 t", "5 columns"),
        (b"q1 Q0 my doc 2 8 t", "column 4, 'doc', is no rank: a space in an id"),
        (b"q1 Q0 d1 2 high t", "score .column 5. is 'high', not a number"),
        (b"q1 Q0 d1 2 nan t", "'nan' is not a finite number"),
        (b"q1 Q0 d1 2 -Inf t", "'-Inf' is not a finite number"),
        (b"q1 Q0 d1 2 1e999 t", "'1e999' is not a finite number"),
        (b"q1 Q0 d1 2 1_0 t", "not a number"),
        (b"q1 Q0 d1 2 0x1p3 t", "not a number"),
        (b"q1 Q0 d1 2 8,5 t", "not a number"),
        (b"q1 Q0 d\xff1 2 8 t", "byte 0xff at position 8 is not UTF-8"),
        (b"q1 Q0 d1 2 8 t\xe9", "byte 0xe9 at position 15 is not UTF-8"),
        (b"q1 Q0 d\x001 2 8 t", "control character 0x00"),
        (b"q1 Q0 d1 2 8 t\rq1 Q0 d4 2 8 t", "carriage return inside the line"),
        (b"q1 Q0 d2 2 8 t", "document 'd2' of topic 'q1' stands in line 1 already"),
        (b"#q1 Q0 d1 2 8 t", "starts with '#' would be taken for a comment"),
        (b"\xef\xbb\xbfq1 Q0 d1 2 8 t", "a byte order mark inside the file"),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_first_bad_line_is_named(put, line, words, suffix):
    good = b"".join(b"q7 Q0 d%d 1 %d t\n" % (i, 50 - i) for i in range(40))
    for after in (b"", b"q1 Q0 x 9 -9 t\n", b"also bad\n"):
        path = put(b"q1 Q0 d2 1 9 t\n" + good + line + b"\n" + after, f"a.run{suffix}")
        fails(trec.read_run, path, 42, words)
        fails(lambda p: list(trec.run_blocks(p)), path, 42, words)
        fails(lambda p: list(trec.ranked_blocks(p)), path, 42, words)


@pytest.mark.parametrize("line", [b"q1 Q0 d1 2 nan t", b"q1 Q0 d1 2 8", b"q1 Q0 d1 2 8 \xff", b"q1 x"])
def test_a_bad_first_line_is_named(put, line):
    fails(trec.read_run, put(line + b"\n" + RUN_TEXT), 1, "column|number|UTF-8")


def test_a_column_too_many_does_not_hide_a_column_too_few(put):
    # The right number of separators in all, but 5 columns in one line and 7 in another.
    fails(trec.read_run, put(RUN_TEXT + b"q1 Q0 d5 1 9 my tag\nq1 Q0 d6 2 8\n"), 5, "5 columns")
    fails(trec.read_qrels, put(QRELS_TEXT + b"q1 0 d8\nq1 0 d1 1 1\n"), 4, "3 columns")


def test_a_repeated_document_comes_before_a_bad_line_after_it(put):
    fails(trec.read_run, put(b"q Q0 a 1 2 t\nq Q0 a 2 1 t\nq Q0 b 3 x t\n"), 2, "stands in line 1 already")
    fails(trec.read_run, put(b"q Q0 a 1 2 t\nq Q0 b 3 x t\nq Q0 a 2 1 t\n"), 2, "not a number")


def test_ids_are_text(put):
    run = trec.read_run(put(b"007 Q0 0010 1 3 t\n7 Q0 1e3 1 2 t\nnull Q0 NaN 1 1 t\n"))
    assert run["query_id"].to_list() == ["007", "7", "null"]
    assert run["doc_id"].to_list() == ["0010", "1e3", "NaN"]


def test_quotes_hashes_and_other_scripts_are_ordinary(put):
    text = 'q"1 Q0 "d\'1 1 3 t\nq"1 Q0 d#2 2 2 #t\nü Q0 文\u00a0書 1 1 t\n'
    run = trec.read_run(put(text.encode()))
    assert run.select("query_id", "doc_id").rows() == [('q"1', "\"d'1"), ('q"1', "d#2"), ("ü", "文\u00a0書")]


def test_the_rank_column_is_not_trusted(put):
    run = trec.read_run(put(b"q Q0 a 1 1 t\nq Q0 b 2 3 t\nq Q0 c 2 2 t\n"))
    assert run["doc_id"].to_list() == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "no rows"),
        (b"# only a header\n", "no rows"),
        (b"\xef\xbb\xbf", "no rows"),
    ],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("read", [trec.read_run, trec.read_qrels, blocks])
def test_files_without_rows(put, data, words, suffix, read):
    fails(read, put(data, f"a{suffix}"), None, words)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("read", [trec.read_run, blocks])
def test_a_cut_off_archive_is_an_error_wherever_it_is_cut(put, suffix, read):
    path = put(b"".join(b"q%d Q0 d%d 1 1 t\n" % (i, i * i) for i in range(3000)), f"a{suffix}")
    whole = path.read_bytes()
    for kept in (1, 5, 12, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        fails(read, path, None, "stream is cut off|stream is damaged")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_archives_and_wrong_names(put, tmp_path, suffix):
    path = put(RUN_TEXT * 1, f"a{suffix}")
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 0xFF
    path.write_bytes(whole)
    if suffix == ".gz":  # its checksum is not optional
        fails(trec.read_run, path, None, "damaged")
    path.write_bytes(RUN_TEXT)
    fails(trec.read_run, path, None, "damaged or is none")
    plain = tmp_path / "a.run"
    plain.write_bytes(pack(RUN_TEXT, suffix))
    fails(trec.read_run, plain, None, f"content is {suffix[1:]}, the name does not say so")


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_archives_of_several_parts_are_read_to_the_end(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    parts = b"".join(pack(line + b"\n", suffix) for line in RUN_TEXT.splitlines())
    path.write_bytes(parts + (b"\0" * 7 if suffix == ".gz" else b""))
    assert trec.read_run(path).rows() == ROWS


def test_utf16_is_named(put):
    fails(trec.read_run, put(RUN_TEXT.decode().encode("utf-16")), 1, "UTF-16")


def test_what_cannot_be_opened(tmp_path, put):
    path = put(RUN_TEXT, "bm25.run")
    fails(trec.read_run, tmp_path / "bm52.run", None, f"no such file\nNear it: {path}")
    fails(trec.read_run, tmp_path / "none" / "a.run", None, "There is no folder")
    fails(trec.read_run, tmp_path, None, "a folder, not a file")
    fails(trec.read_run, tmp_path / "a.parquet", None, "no such file")


# ---------------------------------------------------------------------------------------------- blocks


def shuffled_run(topics: int, documents: int, seed: int = 1) -> list[bytes]:
    generator = random.Random(seed)
    lines = []
    for topic in range(topics):
        order = generator.sample(range(10 * documents), documents)
        lines += [
            b"t%d Q0 d%d %d %.1f tag\n" % (topic, d, r, generator.randrange(-9, 40) / 2)
            for r, d in enumerate(order, 1)
        ]
    return lines


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few lines, so that topics are cut at every place."""
    monkeypatch.setattr(trec_bytes.byte_blocks, "__defaults__", (100,))
    monkeypatch.setattr(trec_read, "_SLICE", 7)
    monkeypatch.setattr(trec_read, "_PIECE", 5)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".parquet"])
@pytest.mark.parametrize("documents", [1, 3, 4, 50])
@pytest.mark.usefixtures("small_blocks")
def test_blocks_hold_whole_topics_each_once(put, tmp_path, suffix, documents):
    lines = shuffled_run(12, documents)
    whole = trec.read_run(put(b"".join(lines)))
    path = tmp_path / f"b{suffix}"
    if suffix == ".parquet":
        whole.select("query_id", "doc_id", "score").write_parquet(path)
    else:
        path.write_bytes(pack(b"".join(lines), suffix))
    found = list(trec.run_blocks(path))
    assert len(found) > 1
    topics = [t for block in found for t in block["query_id"].unique()]
    assert len(topics) == len(set(topics)) == 12
    assert_frame_equal(pl.concat(found).sort("query_id", "rank"), whole)
    for block in found:
        assert_frame_equal(block, rank(block))
        assert block.schema == RUN


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usefixtures("small_blocks")
def test_a_file_not_grouped_by_topic_gives_one_block_that_is_right(put, suffix):
    lines = shuffled_run(6, 9)
    whole = trec.read_run(put(b"".join(lines)))
    random.Random(5).shuffle(lines)
    path = put(b"".join(lines), f"b{suffix}")
    (only,) = trec.run_blocks(path)
    assert_frame_equal(only, whole)
    *_, last = trec.ranked_blocks(path)
    assert last.restart
    assert last.doc_id.to_list() == whole["doc_id"].to_list()


@pytest.mark.usefixtures("small_blocks")
def test_a_topic_that_comes_back_much_later_is_noticed(put):
    lines = shuffled_run(5, 30)
    whole = trec.read_run(put(b"".join(lines)))
    path = put(b"".join(lines[10:] + lines[:10]))
    (only,) = trec.run_blocks(path)
    assert_frame_equal(only, whole)
    *before, last = trec.ranked_blocks(path)
    assert [b.restart for b in before] == [False] * len(before)
    assert before
    assert last.restart


@pytest.mark.parametrize("piece", range(1, 12))
def test_two_separators_are_seen_across_every_edge(monkeypatch, piece):
    monkeypatch.setattr(trec_read, "_PIECE", piece)
    assert trec_read._separators(RUN_TEXT) == 18
    for at in range(len(RUN_TEXT)):
        if RUN_TEXT[at : at + 1] in b" \n":
            assert trec_read._separators(RUN_TEXT[:at] + b" " + RUN_TEXT[at:]) is None


@pytest.mark.usefixtures("small_blocks")
def test_ranked_blocks_say_the_same_as_read_run(put):
    lines = shuffled_run(9, 11)
    path = put(b"".join(lines))
    whole = trec.read_run(path)
    seen = []
    for block in trec.ranked_blocks(path):
        assert not block.restart
        assert block.starts[0] == 0
        assert block.starts[-1] == len(block.doc_id) == len(block.score) == len(block.doc_hash)
        assert (block.doc_hash == block.doc_id.hash().to_numpy()).all()
        for i, topic in enumerate(block.topics):
            seen.append(topic)
            rows = slice(int(block.starts[i]), int(block.starts[i + 1]))
            expected = whole.filter(query_id=topic)
            assert block.doc_id[rows].to_list() == expected["doc_id"].to_list()
            assert block.score[rows].tolist() == expected["score"].to_list()
    assert seen == [f"t{i}" for i in range(9)]  # in the order of the file


@pytest.mark.usefixtures("small_blocks")
def test_a_document_repeated_across_blocks_is_found(put):
    lines = shuffled_run(3, 40)
    lines.insert(75, lines[41])  # both in topic t1, far apart
    fails(blocks, put(b"".join(lines)), 76, "stands in line 42 already")


def test_a_line_longer_than_a_block(put, small_blocks):
    assert trec.read_run(put(b"q Q0 " + b"d" * 999 + b" 1 1 t\nq Q0 e 2 0 t")).height == 2


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="only Linux tells a process's peak memory"
)
def test_memory_stays_bounded(tmp_path):
    """The peak memory (MiB) of a pass over a run hardly grows from 100,000 to 600,000 lines."""
    # VmHWM, for ru_maxrss counts the process that started this one too.
    program = """
        import sys
        from harness.trec import ranked_blocks
        lines = sum(len(block.score) for block in ranked_blocks(sys.argv[1]))
        peak, = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
        print(lines, peak)
    """
    topic = "".join(f"@ Q0 msmarco_passage_{i:08d} {i} {1000 - i}.5 bm25\n" for i in range(1000))
    peaks = []
    for topics in (100, 600):
        path = tmp_path / f"{topics}.run"
        path.write_text("".join(topic.replace("@", str(t)) for t in range(topics)))
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), path], capture_output=True, text=True, check=True
        )
        lines, peak = map(int, done.stdout.split())
        assert lines == topics * 1000
        peaks.append(peak / 1024)
    assert peaks[1] < peaks[0] + 40
    assert peaks[1] < 200


# ------------------------------------------------------------------------------------- fast and slow ways

word = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters=list(" \t\n\r\v\f")),
    min_size=1,
    max_size=6,
).filter(lambda t: min(t) >= " " and t[0] not in "#\ufeff")
number = st.floats(allow_nan=False, allow_infinity=False)
gap = st.sampled_from([" ", "\t", "  ", " \t", "\v", "\f "])
end = st.sampled_from(["\n", "\r\n", " \n", "\n\n", "\n# a comment\n", "\t\r\n"])


@quick
@given(st.lists(st.tuples(word, word, number, gap, end), min_size=1, max_size=8))
def test_fast_and_slow_readers_agree(lines):
    plain = "".join(f"{q} Q0 {d} 1 {s!r} t\n" for q, d, s, _, _ in lines).encode()
    odd = "".join(g.join([q, "Q0", d, "1", repr(s), "t"]) + e for q, d, s, g, e in lines).encode()
    expected = [(q, d, s, "t") for q, d, s, _, _ in lines]
    kind = trec_read.RUN_TEXT
    fast = trec_read.parse_block(plain, kind)
    assert fast is not None
    assert fast.rows() == expected
    assert trec_read._slow(plain, kind).rows() == expected
    assert trec_read._slow(odd, kind).rows() == expected
    again = trec_read.parse_block(trec_read._plain(odd, kind.row), kind)
    assert again is not None
    assert again.rows() == expected


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text("q1 .e-+#nai\t\r", max_size=40).map(str.encode))
def test_the_fast_reader_never_sees_what_the_slow_one_refuses(tail):
    """Whatever the bytes: the fast way gives up, or gives what the slow way gives."""
    data = RUN_TEXT + tail.replace(b"\n", b" ") + b"\n" + RUN_TEXT
    fast = trec_read.parse_block(data, trec_read.RUN_TEXT)
    if fast is None:
        return
    if fast["score"].is_finite().all():
        assert trec_read._slow(data, trec_read.RUN_TEXT).rows() == fast.rows()
    else:  # nan and inf parse; run_rows looks for them
        with pytest.raises(trec_lines.BadLineError, match="finite"):
            trec_read._slow(data, trec_read.RUN_TEXT)


token = st.sampled_from(["q", "Q0", "d", "1", "2.5", "t", "#", "#q", "é", "\u00a0", "nan", "\x00", "\ufeff"])
line = st.tuples(
    st.sampled_from(["", " ", "\t"]),
    st.lists(st.tuples(token, st.sampled_from([" ", "\t", "  ", "\r", "\v"])), max_size=2),
    st.sampled_from(
        ["q Q0 d 1 2.5", "q Q0  d 1\t2.5", "q\tQ0\td\t1\t2.5", "# a b", "", "q Q0 d x 2.5", "q Q0 d 1 inf"]
    ),
    st.lists(st.tuples(st.sampled_from([" ", "\t", " \f"]), token), max_size=3),
    st.sampled_from(["\n", "\r\n", " \n", "\r\r\n", "\n\n"]),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(line, min_size=1, max_size=4))
@example([("", [], "q Q0 d 1 2.5", [(" ", "t")], "\n"), ("", [("#", " ")], "q Q0 d 1 2.5", [], "\r\r\n")])
@example([("", [("\ufeff", " ")], "q Q0 d 1 2.5", [], "\n")])
def test_loosened_bytes_mean_what_the_lines_mean(lines):
    """Whatever the white space: bytes brought into form for the fast way give what the slow way gives."""
    text = "".join(
        before + "".join(map("".join, head)) + middle + "".join(map("".join, rest)) + end
        for before, head, middle, rest, end in lines
    )
    kind = trec_read.RUN_TEXT
    try:
        slow = trec_read._slow(text.encode(), kind).rows()
    except trec_lines.BadLineError:
        slow = None
    try:
        fast = trec_read.parse_block(trec_read._plain(text.encode(), kind.row), kind)
    except trec_lines.BadLineError:
        fast = None
    if fast is not None and fast["score"].is_finite().all():
        assert fast.rows() == slow


@settings(max_examples=200, deadline=None)
@given(st.text("0123456789+-.eE_xnaif", min_size=1, max_size=12))
def test_both_readers_mean_the_same_by_a_number(text):
    data = f"q Q0 d 1 {text} t\n".encode()
    try:
        row = trec_lines.run_row(data[:-1])
    except trec_lines.BadLineError:
        row = None
    fast = trec_read.parse_block(data, trec_read.RUN_TEXT)
    if fast is not None and fast["score"].is_finite().all():
        assert row is not None
        assert fast["score"][0] == row.score


# ----------------------------------------------------------------------------------------- several runs


def test_names_are_file_names_less_the_suffixes():
    names = ["a.run", "a.run.gz", "b/a.txt.zst", "a.parquet", "a.trec", "a.res"]
    assert {trec.run_name(n) for n in names} == {"a"}
    assert trec.run_name("10x10.prf.unipd.it.run.gz") == "10x10.prf.unipd.it"
    assert trec.run_name("bm25+rerank.v2") == "bm25+rerank.v2"
    assert trec.run_name(".run") == ".run"


def test_read_runs_takes_files_and_patterns_in_order(put, tmp_path):
    put(RUN_TEXT, "b.run.gz")
    put(RUN_TEXT.replace(b"d1", b"d9"), "a.run.gz")
    (tmp_path / "a.run.meta.yaml").write_text("a twin, no run")
    other = put(RUN_TEXT, "c.txt")
    runs = trec.read_runs([other, f"{tmp_path}/?.run*"])
    assert list(runs) == ["c", "a", "b"]
    assert runs["a"]["doc_id"].to_list() == ["d2", "d9", "d3"]
    assert trec.read_runs([other], depth=1)["c"]["doc_id"].to_list() == ["d2", "d3"]


def test_two_files_of_one_name_and_patterns_for_nothing(put, tmp_path):
    first, second = put(RUN_TEXT, "a.run"), put(RUN_TEXT, "a.run.gz")
    with pytest.raises(InputError, match="the run is named 'a', as is") as caught:
        trec.read_runs([first, second])
    assert str(first) in str(caught.value)
    assert caught.value.path == second
    fails(lambda p: trec.read_runs([p]), tmp_path / "*.none", None, "no file fits")
    with pytest.raises(UsageError, match="no runs"):
        trec.read_runs([])


def test_of_several_bad_files_the_first_given_is_named(put):
    good, bad, worse = put(RUN_TEXT, "a"), put(b"x\n", "z"), put(b"", "b")
    fails(lambda p: trec.read_runs([good, bad, worse]), bad, 1, "1 column")


# ----------------------------------------------------------------------------------------------- qrels


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "data", [QRELS_TEXT, QRELS_TEXT.replace(b" ", b"\t\t"), b"# x\r\n" + QRELS_TEXT.replace(b"\n", b" \r\n")]
)
def test_qrels_are_read_in_file_order(put, data, suffix):
    qrels = trec.read_qrels(put(data, f"q{suffix}"))
    assert qrels.schema == QRELS
    assert qrels.rows() == [
        ("q1", "d1", 1, 1.0, "human"),
        ("q1", "d2", 0, 0.0, "human"),
        ("q2", "d3", -1, -1.0, "label"),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"q1 0 d1", "3 columns, a qrels line has 4"),
        (b"q1 0 d1 1 x", "5 columns, a qrels line has 4 .is this a run"),
        (b"q1 Q0 d1 1 9.5 t", "6 columns"),
        (b"q1 0 d1 1.0", "grade .column 4. is '1.0', not an integer"),
        (b"q1 0 d1 +", "not an integer"),
        (b"q1 0 d1 99999", "outside -32768"),
        (b"q7 0 d3 1", "document 'd3' of topic 'q7' stands in line 4 already, with another grade"),
        (b"q7 1 d3 3", "with another grade or column 2"),
        (b"q1 0 d\xff 1", "not UTF-8"),
        (b"#q1 0 d 1", "comment"),
    ],
)
def test_the_first_bad_line_of_qrels_is_named(put, line, words):
    for after in (b"", b"q9 0 d 1\n", b"also bad\n"):
        path = put(b"".join(b"q7 0 d%d %d\n" % (i, i) for i in range(9)) + line + b"\n" + after)
        fails(trec.read_qrels, path, 10, words)


def test_repeated_pairs_of_one_grade_are_read_once_with_a_warning(put):
    with pytest.warns(StopgapWarning, match="2 repeated lines"):
        qrels = trec.read_qrels(put(QRELS_TEXT + b"q1 0 d1 1\nq1 Q0 d1 +1\n"))
    assert qrels.height == 3


def test_column_two_says_who_graded(put):
    qrels = trec.read_qrels(put(b"q 0 a 1\nq 1 b 1\nq Q0 c 1\nq 2 d 1\n"))
    assert qrels["assessor"].to_list() == ["human", "label", "human", "human"]


# ----------------------------------------------------------------------------------------------- writing

some_runs = st.dictionaries(st.tuples(word, word), number, min_size=1, max_size=12)


@quick
@given(some_runs, st.sampled_from(["a.run", "a.run.gz", "a.zst", "a.parquet"]))
def test_a_written_run_is_read_back_to_the_last_bit(tmp_path, scored, name):
    frame = pl.DataFrame(
        [(q, d, s) for (q, d), s in scored.items()], schema=["query_id", "doc_id", "score"], orient="row"
    )
    path = tmp_path / name
    trec.write_run(frame, path, "mine")
    back = trec.read_run(path)
    assert_frame_equal(back, rank(frame))
    assert [s.hex() for s in back["score"]] == [s.hex() for s in rank(frame)["score"]]
    trec.write_run(back, tmp_path / f"again-{name}", "mine")
    assert (tmp_path / f"again-{name}").read_bytes() == path.read_bytes()


def test_what_a_written_run_looks_like(tmp_path):
    frame = pl.DataFrame({"query_id": ["7", "7"], "doc_id": ["a", "b"], "score": [1.0, 1e-7], "rank": [9, 9]})
    trec.write_run(frame, tmp_path / "a.run", "bm25")
    first, second = (tmp_path / "a.run").read_text().splitlines()
    assert first == "7 Q0 a 1 1.0 bm25"
    assert second.split()[:4] == ["7", "Q0", "b", "2"]
    trec.write_run(frame, tmp_path / "a.parquet", "bm25")
    assert pl.read_parquet_metadata(tmp_path / "a.parquet")["tag"] == "bm25"


BAD_IDS = ["", "a b", "a\tb", "a\nb", "a\x00", "a\r"]


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("column", ["query_id", "doc_id"])
def test_ids_that_text_cannot_hold_are_refused_and_nothing_is_left(tmp_path, bad, column):
    frame = pl.DataFrame({"query_id": ["q"], "doc_id": ["d"], "score": [1.0]}).with_columns(
        pl.lit(bad).alias(column)
    )
    with pytest.raises(SchemaError, match=f"run: {column} .* cannot stand in TREC text"):
        trec.write_run(frame, tmp_path / "a.run", "t")
    labels = frame.select(
        "query_id",
        "doc_id",
        relevance=pl.lit(1, pl.Int16),
        gain=pl.lit(1, pl.Float32),
        assessor=pl.lit("human"),
    )
    with pytest.raises(SchemaError, match=f"qrels: {column} .* cannot stand in TREC text"):
        trec.write_qrels(labels, tmp_path / "q.txt")
    assert not list(tmp_path.iterdir())
    trec.write_run(frame, tmp_path / "a.parquet", "t")
    assert trec.read_run(tmp_path / "a.parquet")[column][0] == bad


@pytest.mark.parametrize("query_id", ["#1", "\ufeff1"])
def test_topics_that_would_be_read_otherwise_are_refused(tmp_path, query_id):
    frame = pl.DataFrame({"query_id": [query_id], "doc_id": ["d"], "score": [1.0]})
    with pytest.raises(SchemaError, match="cannot stand in TREC text"):
        trec.write_run(frame, tmp_path / "a.run", "t")


@pytest.mark.parametrize("tag", ["", "my tag", " t", "t\n", "t\x00", "a\u00a0b"])
def test_tags_are_one_word(tmp_path, tag):
    frame = pl.DataFrame({"query_id": ["q"], "doc_id": ["d"], "score": [1.0]})
    with pytest.raises(UsageError, match="one word"):
        trec.write_run(frame, tmp_path / "a.run", tag)


def labels(*rows: tuple[str, str, int, float, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=QRELS, orient="row")


PLAIN = labels(("q", "a", 2, 2.0, "human"), ("p", "b", -1, -1.0, "human"))
FILLED = labels(("q", "a", 2, 2.0, "human"), ("p", "b", 1, 1.25, "minilm@1a2b")).with_columns(
    probs=pl.Series([None, [0.25, 0.25, 0.5]], dtype=pl.List(pl.Float32)), note=pl.Series(["x", None])
)
grades = st.integers(-(2**15), 2**15 - 1)


@quick
@given(
    st.dictionaries(st.tuples(word, word), grades, min_size=1, max_size=12),
    st.sampled_from(["q", "q.gz", "q.zst"]),
)
def test_plain_qrels_round_trip_without_a_twin(tmp_path, graded, name):
    frame = labels(*((q, d, g, float(g), "human") for (q, d), g in graded.items()))
    trec.write_qrels(frame, tmp_path / name)
    assert_frame_equal(trec.read_qrels(tmp_path / name), frame)
    assert not trec.twin_path(tmp_path / name).exists()


@pytest.mark.parametrize("name", ["q.txt", "q.qrels.gz", "q.zst", "q.parquet"])
def test_filled_qrels_keep_everything(tmp_path, name):
    path = tmp_path / name
    trec.write_qrels(FILLED, path)
    assert_frame_equal(trec.read_qrels(path), FILLED)
    assert trec.qrels_grades(path) is None
    trec.write_qrels(FILLED, path, grades=[-1, 0, 4])
    assert trec.qrels_grades(path) == [-1, 0, 4]
    assert_frame_equal(trec.read_qrels(path), FILLED)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    trec.write_qrels(FILLED, path, grades=[-1, 0, 4])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_text_of_filled_qrels_marks_labelers(tmp_path):
    trec.write_qrels(FILLED, tmp_path / "q.txt")
    assert (tmp_path / "q.txt").read_text() == "q 0 a 2\np 1 b 1\n"
    twin = tmp_path / "q.txt.parquet"
    assert pl.read_parquet_metadata(twin)["stopgap.sha256"] == trec.file_hash(tmp_path / "q.txt")


def test_a_twin_of_another_text_is_not_used(tmp_path):
    path = tmp_path / "q.txt"
    trec.write_qrels(FILLED, path)
    path.write_text("q 0 a 2\np 0 b 3\n")  # an assessor has spoken
    with pytest.warns(StopgapWarning, match="does not belong to"):
        qrels = trec.read_qrels(path)
    assert qrels.rows()[1] == ("p", "b", 3, 3.0, "human")


def test_a_twin_cut_off_is_not_used_unseen(tmp_path):
    path = tmp_path / "q.txt"
    trec.write_qrels(FILLED, path)
    twin = trec.twin_path(path)
    twin.write_bytes(twin.read_bytes()[:-9])
    with pytest.warns(StopgapWarning, match="does not belong to"):
        assert trec.read_qrels(path)["assessor"].to_list() == ["human", "label"]


def test_plain_qrels_take_an_old_twin_away_and_leave_other_files(tmp_path):
    path = tmp_path / "q.txt"
    trec.write_qrels(FILLED, path)
    trec.write_qrels(PLAIN, path)
    assert [p.name for p in tmp_path.iterdir()] == ["q.txt"]
    PLAIN.write_parquet(tmp_path / "q.txt.parquet")  # not ours: no hash
    trec.write_qrels(PLAIN, path)
    assert trec.twin_path(path).exists()
    with pytest.warns(StopgapWarning, match="does not belong to"):
        assert_frame_equal(trec.read_qrels(path), PLAIN)


def test_qrels_that_cannot_be_written(tmp_path):
    for frame, words in [
        (PLAIN.drop("gain"), "lacks 'gain'"),
        (PLAIN.with_columns(relevance=pl.lit(None, pl.Int16)), "relevance is null at row 0"),
        (pl.concat([PLAIN, PLAIN]), "topic 'q' has document 'a' twice"),
        (PLAIN[:0], "no rows"),
        (PLAIN.with_columns(gain=pl.lit(float("nan"), pl.Float32)), "gain is no number at row 0"),
    ]:
        with pytest.raises(SchemaError, match=words):
            trec.write_qrels(frame, tmp_path / "q.txt")
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------- Parquet


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"query_id": [7], "doc_id": ["a"], "score": [1.0]},
            "query_id is Int64, and ids are text: 007 is not 7",
        ),
        (
            {"qid": ["q"], "doc_id": ["a"], "score": [1.0]},
            "lacks the column query_id; it has qid, doc_id, score",
        ),
        ({"query_id": ["q"], "doc_id": ["a"], "score": ["1"]}, "score is String, not a number"),
        ({"query_id": ["q", "q"], "doc_id": ["a", None], "score": [1.0, 2]}, "doc_id is null in row 2"),
        (
            {"query_id": ["q", "q"], "doc_id": ["a", "b"], "score": [1.0, float("nan")]},
            "row 2 is nan, not a finite",
        ),
        (
            {"query_id": ["q", "q"], "doc_id": ["a", "a"], "score": [1.0, 2.0]},
            "'a' of topic 'q' stands there twice",
        ),
        ({"query_id": pl.Series([], dtype=pl.String), "doc_id": [], "score": []}, "doc_id is Null|no rows"),
    ],
)
def test_bad_parquet_runs(tmp_path, columns, words):
    path = tmp_path / "a.parquet"
    pl.DataFrame(columns).write_parquet(path)
    fails(trec.read_run, path, None, words)


def test_parquet_that_is_none(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(RUN_TEXT)
    fails(trec.read_run, path, None, "is no readable Parquet")
    fails(trec.read_qrels, path, None, "is no readable Parquet")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"relevance": [1.5]}, "relevance is Float64, not an integer"),
        ({"relevance": [70000]}, "holds what a qrels cannot"),
        ({"relevance": [1], "gain": pl.Series([None], dtype=pl.Float32)}, "gain is null in row 1"),
        ({"relevance": [1], "probs": ["x"]}, "holds what a qrels cannot"),
        ({"relevance": [1], "gain": [float("inf")]}, "gain is no finite number in row 1"),
    ],
)
def test_bad_parquet_qrels(tmp_path, columns, words):
    path = tmp_path / "q.parquet"
    pl.DataFrame({"query_id": ["q"], "doc_id": ["d"], **columns}).write_parquet(path)
    fails(trec.read_qrels, path, None, words)


def test_parquet_of_other_tools_is_taken(tmp_path):
    path = tmp_path / "q.parquet"
    frame = pl.DataFrame({"doc_id": ["d"], "query_id": ["q"], "relevance": [2]})
    frame.with_columns(pl.col("doc_id").cast(pl.Categorical)).write_parquet(path)
    assert trec.read_qrels(path).rows() == [("q", "d", 2, 2.0, "human")]


# ------------------------------------------------------------------------------------ whole or not at all


def write_half(path: Path) -> None:
    with trec_bytes.replace_file(path) as file:
        file.write(b"half of the n")
        file.flush()
        raise KeyboardInterrupt


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("nameless", [True, False])
def test_where_there_are_no_nameless_files(tmp_path, monkeypatch, nameless):
    if not nameless:
        monkeypatch.setattr(trec_bytes, "_nameless", lambda folder: None)
    path = tmp_path / "a.txt"
    for text in (b"one", b"two"):
        with trec_bytes.replace_file(path) as file:
            file.write(text)
    assert path.read_bytes() == b"two"
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert os.listdir(tmp_path) == ["a.txt"]


def test_where_a_nameless_file_cannot_be_named_it_is_copied(tmp_path, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    with trec_bytes.replace_file(tmp_path / "a") as file:
        file.write(b"text")
    assert (tmp_path / "a").read_bytes() == b"text"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without a name")
def test_a_kill_while_writing_leaves_nothing(tmp_path):
    program = f"""
        import sys, time
        from harness.trec_bytes import replace_file
        with replace_file({str(tmp_path / "a.run")!r}) as file:
            file.write(b"half")
            file.flush()
            print("ready", flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
    assert os.listdir(tmp_path) == []


def test_links_devices_and_folders_that_are_missing(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with trec_bytes.replace_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    with trec_bytes.replace_file(os.devnull) as file:
        file.write(b"new")
    assert not os.path.isfile(os.devnull)
    with (
        pytest.raises(InputError, match="cannot be written: No such file"),
        trec_bytes.replace_file(tmp_path / "none" / "a"),
    ):
        pass


# --------------------------------------------------------------------------------------------- real runs


def test_real_runs_are_read_as_ir_measures_reads_them(data_dir):
    import ir_measures

    for path in sorted((data_dir / "s2cs_setrank_runs" / "runs").glob("*.run.gz"))[:3]:
        run = trec.read_run(path)
        other = {(r.query_id, r.doc_id): r.score for r in ir_measures.read_trec_run(str(path))}
        assert {(q, d): s for q, d, s, _ in run.rows()} == other


def test_real_qrels_are_read_as_ir_measures_reads_them(data_dir):
    import ir_measures

    for path in sorted(data_dir.glob("*/qrels.*.txt")):
        other = {(r.query_id, r.doc_id): r.relevance for r in ir_measures.read_trec_qrels(str(path))}
        assert {(q, d): g for q, d, g, *_ in trec.read_qrels(path).rows()} == other, path
