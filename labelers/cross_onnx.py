"""A BERT cross-encoder as an ONNX graph with int8 products, without torch: built, run, and written to a file.

The graph is that of the sentence encoder (`labelers.bert_onnx`) with a head on top: from the first token's
state, by a dense layer and tanh (the pooler), to one logit for each label. Both are in float32, being small.
Since nothing else of the last layer is looked at, that layer is computed for the first token alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import LabelerError, MissingExtra
from labelers.bert_onnx import BUILDER, Bert
from labelers.bert_session import Graph, processors, read_session, session, tensors, write
from labelers.cross_files import EXPORTED, find_cross, names, unsupported
from labelers.sentence_folder import digest
from labelers.text_windows import Window, batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from labelers.causal_files import ModelFiles
    from labelers.cross_tokens import Read

__all__ = ["VERSION", "OnnxModel", "build", "export_onnx"]

VERSION = f"{BUILDER}.1"
"""Changes with everything that changes what the graph computes."""
_INPUTS = ["input_ids", "token_type_ids"]
_TOKENS = 400  # of a batch: more do not fit the processor's cache, fewer leave it idle


def build(weights: dict[str, NDArray[Any]], config: dict[str, Any], exact: bool) -> bytes:
    """The graph, serialised: input_ids and token_type_ids int64 (rows, length) to logits (rows, labels).

    There is no mask: all rows of a batch are pairs of one length.

    Parameters
    ----------
    weights: tensors by their names in the file of a BertForSequenceClassification, without `bert.`.
    config: its config.json. exact: float32 throughout.

    Raises
    ------
    KeyError: a tensor or a setting is not there.
    """
    return bytes(_CrossBert(weights, config, exact).model().SerializeToString())


class _CrossBert(Bert):
    def model(self) -> Any:
        """The whole graph."""
        from onnx import TensorProto, helper

        g = self.graph
        pooled = g.op("Tanh", self.linear(self.encoded(_INPUTS[1], first=True), "pooler.dense"))
        g.nodes.append(helper.make_node("Identity", [self.linear(pooled, "classifier")], ["logits"]))
        axes, count = ["rows", "length"], len(self.get("classifier.bias"))
        given = [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in _INPUTS]
        found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [axes[0], count])
        return g.model("cross-encoder", given, found)

    def linear(self, x: str, name: str) -> str:
        """A dense layer in float32."""
        g = self.graph
        product = g.op("MatMul", x, g.floats(self.get(f"{name}.weight").T))
        return g.op("Add", product, g.floats(self.get(f"{name}.bias")))


_GRAPH = Graph("cross", VERSION, "a cross-encoder", build)


class OnnxModel:
    """A cross-encoder on a CPU.

    Parameters
    ----------
    files: the model. exact: float32. batch: pairs in one forward pass, at most. As many batches run side by
        side as this process has processors.

    Raises
    ------
    MissingExtra: onnxruntime or, to build the graph, onnx or safetensors is not installed.
    LabelerError: the weights are not those of such a model, or the graph cannot be run here.
    """

    def __init__(self, files: ModelFiles, *, exact: bool, batch: int) -> None:
        self._batch = batch
        if files.weights:
            file = files.path / "model.safetensors"
            self._session = session(file, digest(file), files.config, exact=exact, graph=_GRAPH)
        else:
            self._session = read_session(files.path / EXPORTED)
        found, given = self._session.get_outputs(), {one.name for one in self._session.get_inputs()}
        if given != set(_INPUTS) or [one.name for one in found] != ["logits"]:
            raise LabelerError(f"{files.path / EXPORTED} is not a cross-encoder. Next: export it again")
        if (has := found[0].shape[-1]) != len(names(files)):
            raise LabelerError(
                f"{files.path} has weights for {has} labels, and config.json names {len(names(files))}"
            )

    def logits(self, asked: Sequence[Read]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """For each batch's pairs, their place in `asked` and their logits, as they are computed."""
        windows = [Window(row, 0, np.array(one.ids, dtype=np.int32)) for row, one in enumerate(asked)]
        groups = [
            group[first : first + self._batch]
            for group in batches(windows, _TOKENS)
            for first in range(0, len(group), self._batch)
        ]

        def run(group: list[Window]) -> NDArray[np.float64]:
            ids = np.stack([window.pieces for window in group]).astype(np.int64)
            types = np.array([asked[window.text].types for window in group], dtype=np.int64)
            found = self._session.run(["logits"], dict(zip(_INPUTS, (ids, types), strict=True)))[0]
            return np.asarray(found, dtype=np.float64)

        with ThreadPoolExecutor(processors(), thread_name_prefix="cross-encoder") as pool:
            for group, found in zip(groups, pool.map(run, groups), strict=True):
                yield from zip((window.text for window in group), found, strict=True)


def export_onnx(folder: str | Path, out: str | Path) -> Path:
    """Write a cross-encoder as an int8 graph into a file, for machines that need no weights then.

    A folder with this file, config.json and tokenizer.json is a model for `cross-encoder:FOLDER`; where the
    weights are there too, they are used, and the graph is built from them. It cannot be used on a processor
    whose int8 products saturate (x86 before VNNI).

    Parameters
    ----------
    folder: a BertForSequenceClassification with model.safetensors; or a hub id that was downloaded.
    out: a folder, in which the file is then `stopgap_int8.onnx`, or the file.

    Returns
    -------
    The file.

    Raises
    ------
    LabelerError: the model is of another kind, or its weights are not there or not whole.
    MissingExtra: onnx or safetensors is not installed.
    """
    files = find_cross(str(folder))
    if why := unsupported(files):
        raise LabelerError(f"{files.path} cannot be exported: {why}")
    if not files.weights:
        raise LabelerError(f"{files.path} lacks model.safetensors, the weights that are exported")
    weights = files.path / "model.safetensors"
    try:
        graph = build(tensors(weights), files.config, exact=False)
    except KeyError as exc:
        raise LabelerError(f"{weights} lacks {exc.args[0]!r}, which {_GRAPH.what} has") from exc
    except ModuleNotFoundError as exc:
        raise MissingExtra(str(exc.name), "slm") from exc
    target = Path(out)
    if target.is_dir():
        target = target / EXPORTED
    target.parent.mkdir(parents=True, exist_ok=True)
    write(graph, target)
    return target
