"""A BERT encoder as an ONNX graph with int8 products, built from a safetensors file without torch.

Weights are int8 with a scale for each column; activations are uint8 with a scale and a zero point for each
token, so what comes out for a text does not depend on which texts are with it. The product of a zero point
with a column's sum would have to be taken off again; instead the sums are made to vanish:

- After a layer normalisation, y = n * w + b with mean(n) = 0, so any multiple of 1/w may be added to a
  column of the next weights, up to a constant that goes into the bias; the multiple is chosen so that the
  column sums to 0, and the codes are rounded to sum to 0 exactly.
- What follows attention is quantised symmetrically around 128, for which the kernel takes a common zero
point. - GELU's outputs lie above -0.17, so that theirs is shifted to 0 and the shift goes into the bias.

The value projection stays in float32: it is the one where int8 costs the most accuracy.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import LabelerError, MissingExtra

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["BUILDER", "session"]

BUILDER = "2"
"""Changes with everything that changes what the graph computes."""

_MS = "com.microsoft"
_GELU_LOW = 0.17


class _Graph:
    """Nodes and constants; names are given in order."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, array: Any) -> str:
        from onnx import numpy_helper

        name = f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.float32(value).reshape(()))

    def floats(self, values: Floats) -> str:
        return self.constant(np.asarray(values, dtype=np.float32))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attributes))
        return name

    def last(self, x: str, kind: str) -> str:
        """ReduceMax or ReduceMin over the channels of each token."""
        return self.op(kind, x, self.constant(np.array([-1])), keepdims=0)

    def column(self, scale: str) -> str:
        return self.op("Reshape", scale, self.constant(np.array([-1, 1])))

    def product(
        self, codes: str, weights: NDArray[np.int8], scales: NDArray[np.float32], zero: int = 0
    ) -> str:
        """Codes times int8 weights, scaled by column."""
        nothing = self.constant(np.zeros(len(scales), np.int8))
        at, factor = self.constant(np.array(zero, np.uint8)), self.constant(scales)
        inputs = (codes, self.constant(weights), self.number(1), factor, at, nothing)
        return self.op("MatMulIntegerToFloat", *inputs, domain=_MS)

    def coded(self, x: str) -> tuple[str, str]:
        """uint8 codes of each token between its least and greatest value, and the scale of each token."""
        high, low = self.last(x, "ReduceMax"), self.op("Min", self.last(x, "ReduceMin"), self.number(0))
        scale = self.op("Mul", self.op("Sub", high, low), self.number(1 / 255))
        zero = self.op("QuantizeLinear", self.op("Neg", low), scale, axis=0)
        return self.op("QuantizeLinear", x, scale, zero, axis=0), self.column(scale)

    def coded_around(self, x: str) -> tuple[str, str]:
        """uint8 codes of each token, symmetric around 128."""
        high, low = self.last(x, "ReduceMax"), self.op("Neg", self.last(x, "ReduceMin"))
        scale = self.op("Mul", self.op("Max", high, low), self.number(1 / 127))
        zero = self.op("QuantizeLinear", self.op("Mul", scale, self.number(128)), scale, axis=0)
        return self.op("QuantizeLinear", x, scale, zero, axis=0), self.column(scale)

    def coded_gelu(self, x: str) -> tuple[str, str]:
        """uint8 codes of GELU's outputs, the code 0 being -0.17."""
        from onnx import TensorProto

        high = self.last(x, "ReduceMax")
        ratio = self.op("Add", self.op("Mul", high, self.number(1 / _GELU_LOW)), self.number(1))
        zero = self.op("Max", self.op("Floor", self.op("Div", self.number(255), ratio)), self.number(1))
        fine = self.op("Div", self.number(_GELU_LOW), zero)
        scale = self.op("Max", fine, self.op("Mul", high, self.number(1 / 254)))
        at = self.op("Cast", zero, to=TensorProto.UINT8)
        return self.op("QuantizeLinear", x, scale, at, axis=0), self.column(scale)


def _codes(weights: Floats) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 codes (in, out) and the scale of each column."""
    scale = np.maximum(np.abs(weights).max(axis=0), 1e-12) / 127
    return np.clip(np.round(weights / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


def _codes_of_sum_zero(weights: Floats) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 codes each of whose columns sums to 0, for weights whose columns do.

    Rounding leaves sums of a few units; those entries move by one that lie nearest to the other code.
    """
    scale = np.maximum(np.abs(weights).max(axis=0), 1e-12) / 127
    exact = weights / scale
    codes = np.clip(np.round(exact), -127, 127)
    excess = codes.sum(axis=0)
    way = np.sign(excess)
    cost = (exact - codes) * way + (np.abs(codes - way) > 127) * 10
    codes -= way * (np.argsort(np.argsort(cost, axis=0), axis=0) < np.abs(excess))
    return codes.astype(np.int8), scale.astype(np.float32)


class _Bert:
    """The graph of one model, layer by layer."""

    def __init__(self, weights: dict[str, NDArray[Any]], config: dict[str, Any]) -> None:
        self.weights, self.graph = weights, _Graph()
        self.width, self.heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        self.layers, self.epsilon = int(config["num_hidden_layers"]), float(config["layer_norm_eps"])

    def get(self, name: str) -> Floats:
        """A tensor by its name in the file."""
        return self.weights[name].astype(np.float64)

    def build(self) -> Any:
        """The model: input_ids (rows, length) to states (rows, length, width)."""
        from onnx import TensorProto, helper

        g = self.graph
        shape, zero = g.op("Shape", "input_ids"), g.constant(np.array([0]))
        length = g.op("Gather", shape, g.constant(np.array([1])))
        self.split = g.op("Concat", shape, g.constant(np.array([self.width])), axis=0)
        self.flat = g.constant(np.array([-1, self.width]))
        places = self.get("embeddings.position_embeddings.weight")
        places = places + self.get("embeddings.token_type_embeddings.weight")[0]
        words = g.op("Gather", g.floats(self.get("embeddings.word_embeddings.weight")), "input_ids")
        x = g.op("Add", words, g.op("Slice", g.floats(places), zero, length, zero))
        name = "embeddings.LayerNorm"
        x = self.norm(g.op("Reshape", x, self.flat), name, np.zeros(self.width))
        for layer in range(self.layers):
            x, name = self.layer(layer, x, name)
        g.nodes.append(helper.make_node("Reshape", [x, self.split], ["states"]))
        axes = ["rows", "length"]
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, axes)
        states = helper.make_tensor_value_info("states", TensorProto.FLOAT, [*axes, self.width])
        graph = helper.make_graph(g.nodes, "bert", [ids], [states], g.constants)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid(_MS, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def norm(self, x: str, name: str, shift: Floats) -> str:
        """A layer normalisation with `shift` added to its output."""
        bias = self.graph.floats(self.get(f"{name}.bias") + shift)
        scale = self.graph.floats(self.get(f"{name}.weight"))
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.epsilon)

    def balanced(self, weights: Floats, norm: str, shift: Floats) -> tuple[Floats, Floats]:
        """Weights after a normalisation with columns that sum to 0, and the constant that makes up for it."""
        inverse = 1 / self.get(f"{norm}.weight")
        level = float((inverse * (self.get(f"{norm}.bias") + shift)).sum())
        multiple = -weights.sum(axis=0) / inverse.sum()
        return weights + inverse[:, None] * multiple, -level * multiple

    def layer(self, number: int, x: str, norm: str) -> tuple[str, str]:
        """One layer after the normalisation `norm`; its output and the name of its own last normalisation."""
        g, p, nothing = self.graph, f"encoder.layer.{number}.", np.zeros(self.width)
        codes, scale = g.coded(x)
        query = self.get(f"{p}attention.self.query.weight").T
        wide, constant = self.balanced(query, norm, nothing)
        bias = self.get(f"{p}attention.self.query.bias") + constant
        q = g.op("Add", g.op("Mul", g.product(codes, *_codes_of_sum_zero(wide)), scale), g.floats(bias))
        # A bias of the keys moves all scores of a query alike, which softmax does not see.
        wide, _ = self.balanced(self.get(f"{p}attention.self.key.weight").T, norm, nothing)
        k = g.op("Mul", g.product(codes, *_codes_of_sum_zero(wide)), scale)
        v = g.op("MatMul", x, g.floats(self.get(f"{p}attention.self.value.weight").T))
        heads: dict[str, Any] = {"q_num_heads": self.heads, "kv_num_heads": self.heads}
        attended = g.op("Attention", *(g.op("Reshape", t, self.split) for t in (q, k, v)), **heads)
        codes, scale = g.coded_around(g.op("Reshape", attended, self.flat))
        out = self.get(f"{p}attention.output.dense.weight").T
        bias = self.get(f"{p}attention.output.dense.bias") + self.get(f"{p}attention.self.value.bias") @ out
        mixed = g.op("Mul", g.product(codes, *_codes(out), zero=128), scale)
        mixed = g.op("Add", mixed, g.floats(bias))

        down = _codes(self.get(f"{p}output.dense.weight").T)
        shift = self.get(f"{p}output.dense.bias") - _GELU_LOW * (down[0] * down[1].astype(float)).sum(axis=0)
        norm = f"{p}attention.output.LayerNorm"
        y = self.norm(g.op("Add", mixed, x), norm, shift)
        codes, scale = g.coded(y)
        up = self.get(f"{p}intermediate.dense.weight").T
        wide, constant = self.balanced(up, norm, shift)
        bias = self.get(f"{p}intermediate.dense.bias") - shift @ up + constant
        inner = g.op("Mul", g.product(codes, *_codes_of_sum_zero(wide)), scale)
        codes, scale = g.coded_gelu(g.op("Gelu", g.op("Add", inner, g.floats(bias))))
        outer = g.op("Mul", g.product(codes, *down), scale)
        norm = f"{p}output.LayerNorm"
        return self.norm(g.op("Add", outer, y), norm, nothing), norm


def session(weights: Path, config: dict[str, Any], cached: Path) -> Any:
    """An inference session of the int8 model, built into `cached` the first time.

    Raises
    ------
    MissingExtra: onnxruntime, or for building onnx or safetensors, is not installed.
    LabelerError: the file lacks a tensor of BERT.
    """
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as exc:
        raise MissingExtra("onnxruntime", "slm") from exc
    if not cached.exists():
        _write(weights, config, cached)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The fused kernel is slower here than the two it replaces.
    return ort.InferenceSession(
        str(cached), options, providers=["CPUExecutionProvider"], disabled_optimizers=["BiasGeluFusion"]
    )


def _write(weights: Path, config: dict[str, Any], cached: Path) -> None:
    try:
        import onnx  # noqa: F401
        from safetensors import safe_open
    except ModuleNotFoundError as exc:
        raise MissingExtra(str(exc.name), "slm") from exc
    with safe_open(str(weights), "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        model = _Bert(tensors, config).build().SerializeToString()
    except KeyError as exc:
        raise LabelerError(f"{weights} lacks {exc}; only BERT encoders are supported") from exc
    handle, temporary = tempfile.mkstemp(dir=cached.parent, prefix=cached.name)
    with os.fdopen(handle, "wb") as file:
        file.write(model)
    os.replace(temporary, cached)
