"""A model that reads query and document together: `cross-encoder:FOLDER_OR_HUB_ID`.

A model with one label gives a `score`, its logit as it is. One with a label for each of the collection's
grades gives `probs`, the softmax of its logits. Nothing else can be used. Query and document are a pair of
texts to the model's tokenizer; the query is always whole, the document is cut to what fits.

A BERT model runs on a CPU as an ONNX graph in int8, without torch; any other, and any on a GPU, through
transformers.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from harness.errors import LabelerError, UsageError
from labelers.causal_files import ModelFiles
from labelers.cross_base import Logits, ReadsPairs
from labelers.cross_files import EXPORTED, find_cross, longest, tells_parts, unsupported
from labelers.cross_onnx import VERSION, OnnxModel
from labelers.cross_settings import Settings, read_settings
from labelers.cross_tokens import PairTokens, Read
from labelers.cross_torch import TorchModel
from labelers.devices import where
from labelers.sentence_folder import digest

__all__ = ["CrossEncoder"]

_PROTOCOL = 1  # goes up with every change to what the model sees or how its logits become signals


class CrossEncoder(ReadsPairs):
    """A labeler that runs a sequence-classification model on each pair.

    What comes out for a pair does not depend on the others in the call but for rounding (1e-5 in int8 and in
    float32, about 0.01 in bfloat16).

    Parameters
    ----------
    argument: FOLDER_OR_HUB_ID[?settings] (`labelers.cross_settings`). grades: the collection's grades and
        their words.

    Raises
    ------
    UsageError, UnknownName: settings that cannot be meant. LabelerError: the model is not there, is of
        another kind, or has other labels than the collection has grades; the message says what to do.
    MissingExtra: torch, which tells whether there is such a device, is not installed.
    """

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        self._settings = settings = read_settings(argument)
        files = find_cross(settings.model, settings.revision)
        self._runs_on = how = _chosen(settings, files)
        decides = {
            "protocol": _PROTOCOL,
            "exported": "" if files.weights else digest(files.path / EXPORTED),
            # In float32 both back ends compute the same.
            "numbers": f"int8 {VERSION}" if how.dtype == "int8" else how.dtype,
            "cut": settings.tokens,
        }
        super().__init__(settings.model, files, grades, decides)

    def _logits(self, asked: Sequence[Read]) -> Iterable[tuple[int, Logits | None]]:
        return self._model.logits(asked)

    @cached_property
    def _tokens(self) -> PairTokens:
        files, file = self._files, self._files.path / "tokenizer.json"
        known, parts = files.config.get("vocab_size"), tells_parts(files)
        return PairTokens(file, longest(files), self._settings.tokens, known, parts=parts)

    @cached_property
    def _model(self) -> OnnxModel | TorchModel:
        how, batch = self._runs_on, self._settings.batch
        if how.backend == "onnx":
            return OnnxModel(self._files, exact=how.dtype == "float32", batch=batch)
        return TorchModel(self._files, device=how.device, dtype=how.dtype, batch=batch)


class _RunsOn(NamedTuple):
    backend: str
    device: str
    dtype: str


def _chosen(settings: Settings, files: ModelFiles) -> _RunsOn:
    """What runs a model.

    `auto` means the same whatever is installed, but for the GPU: a model is not quietly run by another back
    end, with other numbers, because a package is missing.
    """
    backend, device, dtype = settings.backend, settings.device, settings.dtype
    why_not = unsupported(files)
    if backend == "auto":
        if not files.weights or dtype == "int8":
            backend = "onnx"
        elif (
            why_not or dtype == "bfloat16" or device not in ("auto", "cpu") or (device == "auto" and _cuda())
        ):
            backend = "torch"
        else:
            backend = "onnx"
    if backend == "onnx":
        if why_not:
            raise LabelerError(f"{files.path} cannot run with onnx: {why_not}. Next: backend=torch")
        if device not in ("auto", "cpu"):
            raise UsageError(f"setting device={device!r}: onnx runs on a CPU here.\nNext: backend=torch")
        if dtype == "bfloat16":
            raise UsageError("setting dtype='bfloat16': onnx has int8 and float32.\nNext: backend=torch")
        if not files.weights and dtype == "float32":
            raise UsageError(f"setting dtype='float32': {files.path} has no weights, only {EXPORTED}")
        return _RunsOn(backend, "cpu", "int8" if dtype == "auto" else dtype)
    if dtype == "int8":
        raise UsageError("setting dtype='int8': torch has bfloat16 and float32.\nNext: backend=onnx")
    if not files.weights:
        raise LabelerError(
            f"{files.path} lacks weights (*.safetensors), which torch needs. Next: backend=onnx"
        )
    return _RunsOn(backend, *where(device, dtype))


def _cuda() -> bool:
    """Whether there is a GPU; torch, slow to import, is only asked where there is a driver for one."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        import torch
    except (OSError, ModuleNotFoundError):
        return False
    return bool(torch.cuda.is_available())
