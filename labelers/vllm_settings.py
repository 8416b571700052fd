"""What stands behind `vllm:` on the command line: a model on this machine, and settings.

vllm:FOLDER                                              a folder with a model
vllm:Qwen/Qwen2.5-7B-Instruct                            a hub id, which has been downloaded
vllm:FOLDER?prompt=basic&adapter=FOLDER&memory=50        with settings
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UsageError
from labelers.causal_settings import Prompted, read_as

__all__ = ["Settings", "read_settings"]

_BESIDE = 6000
"""Tokens beside the document: the prompt's own words, guidelines and the query."""


@dataclass(frozen=True)
class Settings(Prompted):
    """How vLLM runs a model.

    Attributes
    ----------
    context: tokens that a prompt may have, at most; 0: as many as `tokens` of a document and 6,000 more need,
        if the model can read so many. The memory must have room for one such prompt.
    batch: pairs under way at a time, at most.
    gpus: over which the model is spread. memory: how much of a GPU's memory may be used, in per cent.
    cache: GiB for keys and values instead of what `memory` leaves; 0: what it leaves, and on a CPU 2.
    dtype: `auto` (bfloat16 on a GPU, float32 on a CPU), or one of the two.
    """

    context: int = 0
    batch: int = 256
    gpus: int = 1
    memory: int = 90
    cache: int = 0
    dtype: str = "auto"

    @property
    def room(self) -> int:
        """Tokens that a prompt may have, if the model can read so many."""
        return self.context or self.tokens + _BESIDE


def read_settings(argument: str | None) -> Settings:
    """The settings that the text behind `vllm:` gives.

    Raises
    ------
    UsageError, UnknownName: as for `causal_settings.read_as`; and a share of more than all the memory.
    """
    choices = {"dtype": ("auto", "bfloat16", "float32")}
    settings = read_as(Settings, argument, "vllm:FOLDER or vllm:HUB/ID, and ?setting=value&…", choices)
    if settings.memory > 100:
        raise UsageError(f"setting memory={settings.memory} is more than 100 per cent of a GPU's memory")
    return settings
