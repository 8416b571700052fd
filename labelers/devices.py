"""Which device a model runs on here, and in which numbers, as torch calls them."""

from __future__ import annotations

from harness.errors import MissingExtra, UsageError

__all__ = ["place", "where"]


def where(device: str, dtype: str) -> tuple[str, str]:
    """Device and dtype: `auto` is CUDA where there is one, and there bfloat16, elsewhere float32.

    Raises
    ------
    UsageError: no such device here. MissingExtra: torch, which tells, is not installed. (It is not asked
        about `cpu`.)
    """
    if device != "cpu":
        device = place(device)
    on_cuda = device.partition(":")[0] == "cuda"
    return device, ("bfloat16" if on_cuda else "float32") if dtype == "auto" else dtype


def place(device: str, *, said: str = "setting device=", cpu: str = "device=cpu", extra: str = "hf") -> str:
    """The device: `auto` is CUDA where there is one, and else the CPU.

    Parameters
    ----------
    device: `auto`, or what torch calls a device. said, cpu: for messages, what stands before the device
        where it is set, and how a CPU is set there. extra: the one that brings torch there.

    Raises
    ------
    UsageError: no such device here. MissingExtra: torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as exc:
        raise MissingExtra("torch", extra) from exc
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise UsageError(f"{said}{device!r} is no device of torch, such as cpu or cuda:0") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"{said}{device!r}: torch finds no CUDA here.\nNext: {cpu}")
    return device
