"""What the verbs printed with --json, read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import InputError
from harness.saved import read_saved, verb_of

SIMULATED = {"fills": {"zero": {}}}
AGREED = {"labeler": "gpt", "kappa": 0.5, "pairs": 3}
DIAGNOSED = {"circularity": None, "scale": {}}


@pytest.mark.parametrize(
    ("saved", "verb"),
    [
        (SIMULATED, "simulate"),
        (AGREED, "agree"),
        ({"labelers": {"gpt": AGREED}, "pairwise": []}, "agree"),
        (DIAGNOSED, "diagnose"),
        ({"measures": {}}, None),
        ({"labelers": []}, None),
    ],
)
def test_the_verb_is_known_by_its_keys(saved: dict[str, object], verb: str | None) -> None:
    assert verb_of(saved) == verb


def test_what_was_printed_is_read(tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    file.write_text(json.dumps(SIMULATED))
    assert read_saved(file) == read_saved(file, "simulate") == SIMULATED


@pytest.mark.parametrize(
    ("text", "verb", "line", "told"),
    [
        (None, None, None, "No such file"),
        ('{\n"fills": {', None, 2, "holds no JSON"),
        ("[1]", None, None, "is not what agree, simulate or diagnose prints"),
        (json.dumps(AGREED), "simulate", None, "is not what simulate prints"),
        ("\x00", None, 1, "holds no JSON"),
    ],
)
def test_anything_else_is_refused_with_the_next_command(
    tmp_path: Path, text: str | None, verb: str | None, line: int | None, told: str
) -> None:
    file = tmp_path / "saved.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        read_saved(file, verb)
    assert caught.value.line == line
    assert f"stopgap {verb or 'agree'} ... --json > saved.json" in str(caught.value)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="holds no JSON"):
        read_saved(tmp_path / "saved.json")
