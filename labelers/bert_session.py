"""An inference session of a BERT model: built once on a machine, kept in the cache, read from there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.cache import cache_dir
from harness.errors import LabelerError, MissingExtra, first_line
from labelers.bert_onnx import BUILDER, PROBE, PROBE_PRODUCT, build, probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ENCODER", "Graph", "processors", "read_session", "session", "tensors", "write"]


class Graph(NamedTuple):
    """A kind of graph.

    Attributes
    ----------
    stem: of the names of its files in the cache. version: changes with everything that changes what it
        computes. what: whose tensors it needs, for messages.
    build: the graph, serialised, from weights by their names, config.json, and whether it is in float32.
    """

    stem: str
    version: str
    what: str
    build: Callable[[dict[str, NDArray[Any]], dict[str, Any], bool], bytes]


ENCODER = Graph("bert", BUILDER, "a BERT encoder", lambda w, config, exact: build(w, config, exact=exact))
"""From input_ids (rows, length) to states (rows, length, width)."""


def session(
    weights: Path, digest: str, config: dict[str, Any], *, exact: bool, graph: Graph = ENCODER
) -> Any:
    """An onnxruntime session of a graph, on one thread.

    Runs of one session may overlap: threads are the caller's. The model is in int8, or in float32 if asked
    for or where this processor's int8 kernel is not exact. It is built at the first call on a machine (a few
    seconds), and read from the cache at the others.

    Parameters
    ----------
    weights: a BERT model's model.safetensors. digest: its sha256. config: its config.json.
    exact: float32. graph: what is built of them.

    Raises
    ------
    MissingExtra: onnxruntime or, to build, onnx or safetensors is not installed.
    LabelerError: the file is not that of the graph's model, or onnxruntime is too old for the graph.
    """
    ort = _onnxruntime()
    folder = cache_dir("models")
    exact = exact or not _int8_is_exact(ort, folder)
    kind = "float32" if exact else "int8"
    decides = json.dumps([digest, config, f"{graph.version} {ort.__version__}"], sort_keys=True)
    file = folder / f"{graph.stem}-{_short(decides)}-{kind}.onnx"
    return _kept(ort, file, lambda: graph.build(tensors(weights), config, exact), graph.what)


def read_session(file: Path) -> Any:
    """An onnxruntime session of an int8 graph that was written to a file, on one thread.

    Raises
    ------
    MissingExtra: onnxruntime is not installed. LabelerError: the file is no graph, or int8 products are not
        exact on this processor.
    """
    ort = _onnxruntime()
    if not _int8_is_exact(ort, cache_dir("models")):
        raise LabelerError(
            f"{file} cannot be used on this processor, whose int8 products saturate. "
            "Next: the folder with its weights (*.safetensors), from which a float32 graph is made here"
        )
    try:
        return _open(ort, str(file))
    except Exception as exc:
        raise LabelerError(
            f"onnxruntime {ort.__version__} cannot read {file}: {first_line(exc)}. Next: export it again"
        ) from exc


def processors() -> int:
    """Processors that this process may use: so many runs of a session are worth having side by side."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as exc:
        raise MissingExtra("onnxruntime", "slm") from exc
    return onnxruntime


def _int8_is_exact(ort: Any, folder: Path) -> bool:
    """Whether sums of int8 products are exact here: older x86 kernels saturate at 16 bits.

    Asked anew each time, for machines that differ may share a cache, the folder.
    """
    file = folder / f"probe-{_short(f'{BUILDER} {ort.__version__}')}.onnx"
    product = _kept(ort, file, probe, "nothing").run(["product"], {"codes": PROBE})[0]
    return bool((product == PROBE_PRODUCT).all())


def _kept(ort: Any, file: Path, make: Callable[[], bytes], what: str) -> Any:
    """A session of the model in `file`, which is made if it is not there or was cut short."""
    if file.exists():
        try:
            return _open(ort, str(file))
        except Exception:
            file.unlink(missing_ok=True)
    try:
        model = make()
    except KeyError as exc:
        raise LabelerError(f"the model lacks {exc.args[0]!r}, which {what} has") from exc
    except ModuleNotFoundError as exc:
        raise MissingExtra(str(exc.name), "slm") from exc
    try:
        opened = _open(ort, model)
    except Exception as exc:
        raise LabelerError(
            f"onnxruntime {ort.__version__} cannot run the graph: {exc}. Next: pip install -U onnxruntime"
        ) from exc
    write(model, file)
    return opened


def _open(ort: Any, model: str | bytes) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The fused kernel is slower here than the two that it replaces.
    return ort.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["BiasGeluFusion"]
    )


def tensors(weights: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, less the prefix `bert.` of a model with a head."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(weights), "np") as file:
            found = {str(name): np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, OSError) as exc:
        raise LabelerError(f"{weights} cannot be read as float tensors: {exc}") from exc
    return {name.removeprefix("bert."): tensor for name, tensor in found.items()}


def write(model: bytes, file: Path) -> None:
    """Put a model into a file, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(model)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
