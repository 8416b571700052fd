"""Where a model runs: the device that is asked for, or a word of what there is."""

from __future__ import annotations

import sys

import pytest

from harness.errors import MissingExtra, UsageError
from labelers.devices import place, where

torch = pytest.importorskip("torch", reason="needs the extra hf")


@pytest.mark.parametrize("cuda", [False, True])
def test_auto_is_what_there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    best = ("cuda", "bfloat16") if cuda else ("cpu", "float32")
    assert where("auto", "auto") == best
    assert where("auto", "float32") == (best[0], "float32")
    assert place("auto") == best[0]
    assert where("cpu", "auto") == ("cpu", "float32")
    assert where("cpu", "bfloat16") == ("cpu", "bfloat16")
    assert where("meta", "auto") == ("meta", "float32")


def test_one_of_several_is_cuda_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert where("cuda:1", "auto") == ("cuda:1", "bfloat16")


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"setting device='cuda:0': torch finds no CUDA here.\nNext: dev"):
        where("cuda:0", "auto")
    with pytest.raises(UsageError, match="setting device='toaster' is no device of torch"):
        where("toaster", "auto")
    with pytest.raises(UsageError, match=r"train.device = 'cuda': .*\nNext: device = \"cpu\""):
        place("cuda", said="train.device = ", cpu='device = "cpu"', extra="train")


def test_without_torch_only_the_cpu_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert where("cpu", "auto") == ("cpu", "float32")
    with pytest.raises(MissingExtra, match=r"stopgap\[hf\]"):
        where("auto", "auto")
    with pytest.raises(MissingExtra, match=r"stopgap\[train\]"):
        place("cpu", extra="train")
