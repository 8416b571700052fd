"""What stands behind `cross-encoder:` on the command line: a model on this machine, and settings.

cross-encoder:FOLDER                             a folder with a model
cross-encoder:HUB/ID?revision=v2                 a hub id, which has been downloaded
cross-encoder:FOLDER?backend=torch&device=cuda   with settings
"""

from __future__ import annotations

from dataclasses import dataclass

from labelers.causal_settings import read_as

__all__ = ["Settings", "read_settings"]

_FORM = "cross-encoder:FOLDER or cross-encoder:HUB/ID, and ?setting=value&…"
_CHOICES = {
    "backend": ("auto", "onnx", "torch"),
    "dtype": ("auto", "bfloat16", "float32", "int8"),
}


@dataclass(frozen=True)
class Settings:
    """How a model is run.

    Attributes
    ----------
    model: a folder, or a hub id. revision: of the hub id; by default `main`.
    backend: `onnx`, on a CPU, `torch`, or `auto`: `onnx` for a model that it can run, unless there is a GPU
        or the device or dtype is one that only torch has.
    tokens: how much of a document is shown, at most, in tokens of the model.
    batch: pairs in one forward pass, at most.
    device: `auto` (CUDA where there is one), or what torch calls a device: `cpu`, `cuda:1`.
    dtype: `auto` (int8 with onnx; with torch bfloat16 on CUDA and float32 elsewhere), or one of the three.
    """

    model: str
    revision: str = ""
    backend: str = "auto"
    tokens: int = 2000
    batch: int = 16
    device: str = "auto"
    dtype: str = "auto"


def read_settings(argument: str | None) -> Settings:
    """The settings that the text behind `cross-encoder:` gives.

    Raises
    ------
    UsageError: no model, a setting given twice, or a number that is none or below 1. UnknownName: no such
        setting, or no such value.
    """
    return read_as(Settings, argument, _FORM, _CHOICES)
