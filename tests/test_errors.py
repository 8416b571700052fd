"""What is said of exceptions that are not ours."""

from __future__ import annotations

import pytest

from harness.errors import first_line, told


@pytest.mark.parametrize(
    ("raised", "whole", "first"),
    [
        (ValueError("too long"), "ValueError: too long", "ValueError: too long"),
        (OSError("\n no file \nat all"), "OSError: \n no file \nat all", "OSError: no file "),
        (KeyError("a"), "KeyError: 'a'", "KeyError: 'a'"),
        (AssertionError(), "AssertionError", "AssertionError"),
        (RuntimeError("\n"), "RuntimeError: \n", "RuntimeError"),
    ],
)
def test_an_exception_says_its_type_and_what_it_was_given(raised: Exception, whole: str, first: str) -> None:
    assert (told(raised), first_line(raised)) == (whole, first)
