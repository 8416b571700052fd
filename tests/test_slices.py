"""Slices of the topics, out of frames and files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InputError, UsageError
from harness.slices import masks, read_slices

TOPICS = [f"q{i}" for i in range(9)]


def sliced(**columns: object) -> dict[str, list[str]]:
    """Name of a slice -> its topics."""
    found = masks(pl.DataFrame({"query_id": TOPICS, **columns}), TOPICS)
    return {name: [t for t, i in zip(TOPICS, inside, strict=True) if i] for name, inside in found.items()}


def test_text_makes_a_slice_of_each_value() -> None:
    kinds = ["fact", "how", None, "fact", "how", "how", "fact", None, "fact"]
    assert sliced(kind=kinds) == {"kind=fact": ["q0", "q3", "q6", "q8"], "kind=how": ["q1", "q4", "q5"]}


def test_many_numbers_make_thirds() -> None:
    assert sliced(length=[9, 1, 8, 2, 7, 3, 6, 4, 5]) == {
        "length=1-3": ["q1", "q3", "q5"],
        "length=4-6": ["q6", "q7", "q8"],
        "length=7-9": ["q0", "q2", "q4"],
    }


def test_numbers_as_text_are_numbers_too() -> None:
    texts = [str(n) for n in (90, 10, 80, 20, 70, 30, 60, 40, 5.5)]
    assert list(sliced(length=texts)) == ["length=5.5-20", "length=30-60", "length=70-90"]


def test_a_few_different_numbers_are_values() -> None:
    found = sliced(words=[2, 3, 2, 3, 4, 2, None, 3, 2])
    assert found == {"words=2": ["q0", "q2", "q5", "q8"], "words=3": ["q1", "q3", "q7"], "words=4": ["q4"]}


def test_one_word_among_numbers_makes_them_words() -> None:
    found = sliced(length=["1", "2", "3", "4", "5", "6", "7", "8", "long"])
    assert len(found) == 9
    assert found["length=long"] == ["q8"]


def test_equal_numbers_stay_together() -> None:
    assert sliced(n=[1, 1, 1, 2, 3, 4, 5, 6, 7])["n=1-1"] == ["q0", "q1", "q2"]
    assert list(sliced(n=[1, 1, 1, 1, 1, 1, 1, 2, 2])) == ["n=1", "n=2"]
    crowded = sliced(n=[1, 1, 1, 1, 2, 3, 4, 5, 6])
    assert len(crowded) == 6
    lopsided = pl.DataFrame({"query_id": [f"q{i}" for i in range(20)], "n": [0] * 13 + [1, 2, 3, 4, 5, 6, 7]})
    found = masks(lopsided, lopsided["query_id"].to_list())
    assert {name: int(inside.sum()) for name, inside in found.items()} == {"n=0-0": 13, "n=1-7": 7}


@given(st.lists(st.none() | st.integers(0, 30), min_size=9, max_size=9).filter(any))
def test_every_topic_with_a_number_is_in_exactly_one_slice(numbers: list[int | None]) -> None:
    found = sliced(n=numbers)
    seats = [t for inside in found.values() for t in inside]
    assert sorted(seats) == [t for t, n in zip(TOPICS, numbers, strict=True) if n is not None]
    for name, inside in found.items():
        low, _, high = name.removeprefix("n=").partition("-")
        own = [numbers[TOPICS.index(t)] or 0 for t in inside]
        assert float(low) <= min(own) <= max(own) <= float(high or low)


def test_several_columns_and_topics_that_are_not_there() -> None:
    frame = pl.DataFrame({"query_id": ["q8", "other", "q1"], "a": ["x", "y", "x"], "b": ["u", "v", None]})
    found = masks(frame, TOPICS)
    assert {name: [int(i) for i in inside.nonzero()[0]] for name, inside in found.items()} == {
        "a=x": [1, 8],
        "b=u": [8],
    }


def test_ids_are_text() -> None:
    found = masks(pl.DataFrame({"query_id": [7, 8], "kind": ["a", "b"]}), ["007", "7"])
    assert {name: inside.tolist() for name, inside in found.items()} == {"kind=a": [False, True]}


def test_slices_of_other_topics() -> None:
    with pytest.raises(
        UsageError, match=r"none of the 9 topics; the first of theirs is '99', of the qrels 'q0'"
    ):
        masks(pl.DataFrame({"query_id": ["99"], "kind": ["a"]}), TOPICS)


def test_slices_without_ids() -> None:
    with pytest.raises(UsageError, match="need a column query_id; there are topic, kind"):
        masks(pl.DataFrame({"topic": ["q1"], "kind": ["a"]}), TOPICS)


def test_a_topic_twice() -> None:
    with pytest.raises(UsageError, match="topic 'q1'"):
        masks(pl.DataFrame({"query_id": ["q0", "q1", "q1"], "kind": ["a", "b", "c"]}), TOPICS)


# -- files ---------------------------------------------------------------------------------------------------


def test_a_file_is_text_throughout(tmp_path: Path) -> None:
    file = tmp_path / "slices.tsv"
    file.write_text('query_id\tkind\tlength\n007\t"fact\t3\n7\t\t12\n')
    assert read_slices(file).to_dicts() == [
        {"query_id": "007", "kind": '"fact', "length": "3"},
        {"query_id": "7", "kind": None, "length": "12"},
    ]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("query_id,kind\n1,a\n", 1, "has the columns query_id,kind; query_id and one more are needed"),
        ("query_id\n1\n", 1, "query_id and one more"),
        ("topic\tkind\n1\ta\n", 1, "has the columns topic, kind; query_id"),
        ("query_id\tkind\n1\ta\n2\tb\n1\tc\n", 4, "topic '1' stands here a second time"),
        ("query_id\tkind\n1\ta\n2\tb\n2\tc\n1\td\n", 4, "topic '2' stands here a second time"),
        ("query_id\tkind\n1\ta\n2\tb\tc\n", None, "cannot be read as tab-separated"),
        ("", None, "cannot be read as tab-separated"),
    ],
)
def test_bad_files_are_told_where(tmp_path: Path, text: str, line: int | None, what: str) -> None:
    file = tmp_path / "slices.tsv"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_slices(file)
    assert caught.value.line == line
    assert what in str(caught.value)
    assert str(caught.value).startswith(f"{file}:{line}: " if line else f"{file}: ")


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.tsv: cannot be read"):
        read_slices(tmp_path / "absent.tsv")
