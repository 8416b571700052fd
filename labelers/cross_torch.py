"""A cross-encoder of any architecture that transformers knows, on whatever torch can use."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from harness.errors import LabelerError, MissingExtra, first_line
from labelers.causal_base import quietly
from labelers.cross_files import names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from labelers.causal_files import ModelFiles
    from labelers.cross_tokens import Read

__all__ = ["TorchModel"]


class TorchModel:
    """A sequence-classification model.

    Pairs are sorted by length and padded on the right, `batch` at a time. In float32 the logits are the same
    for any batch but for rounding (1e-5); in bfloat16 they move by about 0.01.

    Parameters
    ----------
    files: the model. device, dtype: as torch calls them. batch: pairs in one forward pass, at most.

    Raises
    ------
    MissingExtra: torch or transformers is not installed.
    LabelerError: the model cannot be loaded, or its weights are not whole.
    """

    def __init__(self, files: ModelFiles, *, device: str, dtype: str, batch: int) -> None:
        try:
            import torch
            from transformers import AutoConfig, AutoModelForSequenceClassification
        except ModuleNotFoundError as exc:
            raise MissingExtra(str(exc.name), "hf") from exc
        path, known = files.path, {"local_files_only": True, "trust_remote_code": False}
        try:
            with quietly():
                config = AutoConfig.from_pretrained(path, **known)
                model, loaded = AutoModelForSequenceClassification.from_pretrained(
                    path,
                    config=config,
                    dtype=getattr(torch, dtype),
                    use_safetensors=True,
                    output_loading_info=True,
                    **known,
                )
        except Exception as exc:
            raise LabelerError(
                f"{path} is no sequence-classification model to load: {first_line(exc)}"
            ) from exc
        # transformers would put a random head on, and warn.
        if lost := sorted(loaded["missing_keys"]):
            raise LabelerError(f"{path} is no whole cross-encoder: its weights lack {', '.join(lost[:3])}")
        if (has := int(model.config.num_labels)) != len(names(files)):
            raise LabelerError(
                f"{path} has weights for {has} labels, and config.json names {len(names(files))}"
            )
        try:
            self._model = model.to(device).eval()
        except (RuntimeError, AssertionError) as exc:
            raise LabelerError(f"{files.name} cannot be put on {device}: {first_line(exc)}") from exc
        text = model.config.get_text_config()
        padding = getattr(text, "pad_token_id", None)
        # A model that looks for its last token by the padding cannot read two lengths without one.
        self._device, self._padding, self._batch = device, padding or 0, batch if padding is not None else 1
        self._parts = 0
        if "token_type_ids" in inspect.signature(model.forward).parameters:
            self._parts = int(getattr(text, "type_vocab_size", 0) or 0)

    def logits(self, asked: Sequence[Read]) -> Iterator[tuple[int, NDArray[np.float64] | None]]:
        """For each batch's pairs, their place in `asked` and their logits; None: too long for the memory.

        The longest come first: what does not fit is known at once.
        """
        order = sorted(range(len(asked)), key=lambda row: -len(asked[row].ids))
        for first in range(0, len(order), self._batch):
            rows = order[first : first + self._batch]
            yield from zip(rows, self._found([asked[row] for row in rows]), strict=True)

    def _found(self, batch: list[Read]) -> list[NDArray[np.float64] | None]:
        """The logits. A batch too large for the memory is halved."""
        import torch

        try:
            return list(self._forward(batch))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                return [None]
            half = len(batch) // 2
            return [*self._found(batch[:half]), *self._found(batch[half:])]

    def _forward(self, batch: list[Read]) -> NDArray[np.float64]:
        """The logits of pairs, (pairs, labels)."""
        import torch

        longest = max(len(one.ids) for one in batch)

        def padded(rows: list[list[int]], value: int) -> Any:
            return torch.tensor([row + [value] * (longest - len(row)) for row in rows], device=self._device)

        given = {
            "input_ids": padded([one.ids for one in batch], self._padding),
            "attention_mask": padded([[1] * len(one.ids) for one in batch], 0),
        }
        if self._parts > max(max(one.types) for one in batch):
            given["token_type_ids"] = padded([one.types for one in batch], 0)
        with torch.inference_mode():
            return self._model(**given).logits.double().cpu().numpy()  # type: ignore[no-any-return]
