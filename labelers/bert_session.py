"""An inference session of a BERT encoder: built once on a machine, kept in the cache, read from there."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.cache import cache_dir
from harness.errors import LabelerError, MissingExtra
from labelers.bert_onnx import BUILDER, PROBE, PROBE_PRODUCT, build, probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["session"]


def session(weights: Path, digest: str, config: dict[str, Any], *, exact: bool) -> Any:
    """An onnxruntime session from input_ids (rows, length) to states (rows, length, width), on one thread.

    Runs of one session may overlap: threads are the caller's. The model is in int8, or in float32 if asked
    for or where this processor's int8 kernel is not exact. It is built at the first call on a machine (a few
    seconds), and read from the cache at the others.

    Parameters
    ----------
    weights: a BERT encoder's model.safetensors. digest: its sha256. config: its config.json.
    exact: float32.

    Raises
    ------
    MissingExtra: onnxruntime or, to build, onnx or safetensors is not installed.
    LabelerError: the file is no BERT encoder's, or onnxruntime is too old for the graph.
    """
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as exc:
        raise MissingExtra("onnxruntime", "slm") from exc
    folder, made_by = cache_dir("models"), f"{BUILDER} {ort.__version__}"
    # Asked anew each time, for machines that differ may share a cache.
    exact = exact or not _int8_is_exact(ort, folder / f"probe-{_short(made_by)}.onnx")
    kind = "float32" if exact else "int8"
    decides = json.dumps([digest, config, made_by], sort_keys=True)
    file = folder / f"bert-{_short(decides)}-{kind}.onnx"
    return _kept(ort, file, lambda: build(_tensors(weights), config, exact=exact))


def _int8_is_exact(ort: Any, file: Path) -> bool:
    """Whether sums of int8 products are exact here: older x86 kernels saturate at 16 bits."""
    product = _kept(ort, file, probe).run(["product"], {"codes": PROBE})[0]
    return bool((product == PROBE_PRODUCT).all())


def _kept(ort: Any, file: Path, make: Callable[[], bytes]) -> Any:
    """A session of the model in `file`, which is made if it is not there or was cut short."""
    if file.exists():
        try:
            return _open(ort, str(file))
        except Exception:
            file.unlink(missing_ok=True)
    try:
        model = make()
    except KeyError as exc:
        raise LabelerError(f"the model lacks {exc.args[0]!r}, which a BERT encoder has") from exc
    except ModuleNotFoundError as exc:
        raise MissingExtra(str(exc.name), "slm") from exc
    try:
        opened = _open(ort, model)
    except Exception as exc:
        raise LabelerError(
            f"onnxruntime {ort.__version__} cannot run the encoder's graph: {exc}. "
            "Next: pip install -U onnxruntime"
        ) from exc
    _write(model, file)
    return opened


def _open(ort: Any, model: str | bytes) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The fused kernel is slower here than the two that it replaces.
    return ort.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["BiasGeluFusion"]
    )


def _tensors(weights: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, less the prefix `bert.` of a model with a head."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(weights), "np") as file:
            found = {str(name): np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, OSError) as exc:
        raise LabelerError(f"{weights} cannot be read as float tensors: {exc}") from exc
    return {name.removeprefix("bert."): tensor for name, tensor in found.items()}


def _write(model: bytes, file: Path) -> None:
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
