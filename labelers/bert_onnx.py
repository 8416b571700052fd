"""A BERT encoder as an ONNX graph with int8 products, built from its weights without torch.

Weights are int8 with a scale for each column; activations are uint8 with a scale and a zero point for each
token, so that what comes out for a text does not depend on which texts are with it (the dynamic quantisation
of onnxruntime has one scale for a whole batch, and coarser steps). What a zero point adds to a product,
itself times the sum of the column, would have to be taken off again; instead it is made to vanish:

- After a layer normalisation, y = n * w + b with mean(n) = 0. So a multiple of 1/w may be added to a column
  of the weights that follow, at the price of a constant that goes into the bias: the multiple that makes the
  column sum to 0. The codes are rounded so that they sum to 0 exactly.
- What attention mixes is coded symmetrically around 128: one zero point for all, which the kernel knows.
- GELU gives nothing below -0.17, which has the code 0; the shift is a constant that goes into the bias.

Where eight bits cost most, there are more: the values that attention mixes are computed in float32, and the
few inner units with the largest outgoing weights, which would coarsen the steps of all others, are counted
twice, coarse and fine.

A processor whose int8 kernel saturates (x86 before VNNI) gets the same graph in float32: slower, and right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Codes = tuple[NDArray[np.int8], NDArray[np.float32]]

__all__ = ["BUILDER", "PROBE", "PROBE_PRODUCT", "Bert", "build", "probe", "unfit"]

BUILDER = "3"
"""Changes with everything that changes what the graph computes."""

_MS = "com.microsoft"
_GELU_LOW = 0.17
_FINE = 24  # one inner unit in so many is counted twice

PROBE = np.full((4, 64), 255, np.uint8)
PROBE_PRODUCT = 64.0 * 255 * 127


def build(weights: dict[str, NDArray[Any]], config: dict[str, Any], *, exact: bool = False) -> bytes:
    """The model, serialised: input_ids int64 (rows, length) to states float32 (rows, length, width).

    There is no mask: all rows of a batch are texts of one length.

    Parameters
    ----------
    weights: tensors by their names in a BERT encoder's file. config: its config.json.
    exact: float32 throughout.

    Raises
    ------
    KeyError: a tensor or a setting of BERT is not there.
    """
    return bytes(Bert(weights, config, exact).model().SerializeToString())


def unfit(config: dict[str, Any]) -> str | None:
    """Why no graph can be built of a model with this config.json; None: one can."""
    if (kind := config.get("model_type")) != "bert":
        return f"it is a {kind} model, not bert"
    if (act := config.get("hidden_act", "gelu")) != "gelu":
        return f"its inner units are {act}, not gelu"
    if (places := config.get("position_embedding_type", "absolute")) != "absolute":
        return f"its positions are {places}, not absolute"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "it is a decoder"
    return None


def probe() -> bytes:
    """A model, serialised, of one int8 product at the ends of the codes: PROBE gives PROBE_PRODUCT."""
    from onnx import TensorProto, helper

    g = _Graph()
    g.product("codes", np.full((PROBE.shape[1], 16), 127, np.int8), np.ones(16, np.float32))
    g.nodes[-1].output[0] = "product"
    given = helper.make_tensor_value_info("codes", TensorProto.UINT8, PROBE.shape)
    found = helper.make_tensor_value_info("product", TensorProto.FLOAT, [len(PROBE), 16])
    return bytes(g.model("probe", [given], found).SerializeToString())


class _Graph:
    """Nodes and constants; names are given in order."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def model(self, name: str, given: list[Any], found: Any) -> Any:
        from onnx import helper

        graph = helper.make_graph(self.nodes, name, given, [found], self.constants)
        opsets = [helper.make_opsetid("", 23), helper.make_opsetid(_MS, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

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

    def over_channels(self, kind: str, x: str) -> str:
        """ReduceMax or ReduceMin over the channels of each token: (tokens,)."""
        return self.op(kind, x, self.constant(np.array([-1])), keepdims=0)

    def column(self, scale: str) -> str:
        return self.op("Reshape", scale, self.constant(np.array([-1, 1])))

    def product(
        self, codes: str, weights: NDArray[np.int8], scales: NDArray[np.float32], zero: int = 0
    ) -> str:
        """Codes, less their common zero point, times int8 weights, scaled by column."""
        # onnxruntime has a fast kernel for uint8 times int8; other mixtures of signs are many times slower.
        nothing = self.constant(np.zeros(len(scales), np.int8))
        at, factor = self.constant(np.array(zero, np.uint8)), self.constant(scales)
        inputs = (codes, self.constant(weights), self.number(1), factor, at, nothing)
        return self.op("MatMulIntegerToFloat", *inputs, domain=_MS)

    def coded(self, x: str) -> tuple[str, str]:
        """uint8 codes of each token between its least and greatest value, and the scale of each token."""
        high = self.over_channels("ReduceMax", x)
        low = self.op("Min", self.over_channels("ReduceMin", x), self.number(0))
        scale = self.op("Mul", self.op("Sub", high, low), self.number(1 / 255))
        zero = self.op("QuantizeLinear", self.op("Neg", low), scale, axis=0)
        return self.op("QuantizeLinear", x, scale, zero, axis=0), self.column(scale)

    def coded_around(self, x: str) -> tuple[str, str]:
        """uint8 codes of each token, symmetric around 128."""
        high, low = self.over_channels("ReduceMax", x), self.op("Neg", self.over_channels("ReduceMin", x))
        scale = self.op("Mul", self.op("Max", high, low), self.number(1 / 127))
        zero = self.op("QuantizeLinear", self.op("Mul", scale, self.number(128)), scale, axis=0)
        return self.op("QuantizeLinear", x, scale, zero, axis=0), self.column(scale)

    def coded_gelu(self, x: str) -> tuple[str, str]:
        """uint8 codes of GELU's outputs, the code 0 being -0.17: the scale is 0.17 over a whole number."""
        from onnx import TensorProto

        high = self.over_channels("ReduceMax", x)
        ratio = self.op("Add", self.op("Mul", high, self.number(1 / _GELU_LOW)), self.number(1))
        zero = self.op("Max", self.op("Floor", self.op("Div", self.number(255), ratio)), self.number(1))
        fine = self.op("Div", self.number(_GELU_LOW), zero)
        # Above 43 the code 255 would not reach: a coarser scale, and a shift that is not quite 0.17.
        scale = self.op("Max", fine, self.op("Mul", high, self.number(1 / 254)))
        at = self.op("Cast", zero, to=TensorProto.UINT8)
        return self.op("QuantizeLinear", x, scale, at, axis=0), self.column(scale)


def _codes(weights: Floats, scale: Floats | None = None) -> Codes:
    """int8 codes (in, out) of weights, and the scale of each column."""
    if scale is None:
        scale = np.maximum(np.abs(weights).max(axis=0), 1e-12) / 127
    return np.clip(np.round(weights / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


def _codes_of_sum_zero(weights: Floats) -> Codes:
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


class Bert:
    """The graph of one model, layer by layer.

    A product comes as the name of what the graph computes and the constant that is missing from it.
    """

    def __init__(self, weights: dict[str, NDArray[Any]], config: dict[str, Any], exact: bool) -> None:
        self.weights, self.graph, self.exact = weights, _Graph(), exact
        self.width, self.heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        self.layers, self.epsilon = int(config["num_hidden_layers"]), float(config["layer_norm_eps"])

    def get(self, name: str) -> Floats:
        """A tensor by its name in the file."""
        return self.weights[name].astype(np.float64)

    def model(self) -> Any:
        """The whole graph."""
        from onnx import TensorProto, helper

        g, x = self.graph, self.encoded()
        g.nodes.append(helper.make_node("Reshape", [x, self.split], ["states"]))
        axes = ["rows", "length"]
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, axes)
        found = helper.make_tensor_value_info("states", TensorProto.FLOAT, [*axes, self.width])
        return g.model("bert", [ids], found)

    def encoded(self, types: str | None = None, *, first: bool = False) -> str:
        """The states after the last layer, (rows times length, width).

        Parameters
        ----------
        types: the input that tells which part of the text a token belongs to; without, all to part 0.
        first: only those of each row's first token, (rows, width): what is for others alone is left out.
        """
        g = self.graph
        shape, zero = g.op("Shape", "input_ids"), g.constant(np.array([0]))
        length = g.op("Gather", shape, g.constant(np.array([1])))
        self.split = g.op("Concat", shape, g.constant(np.array([self.width])), axis=0)
        self.flat = g.constant(np.array([-1, self.width]))
        places = self.get("embeddings.position_embeddings.weight")
        parts = self.get("embeddings.token_type_embeddings.weight")
        if types is None:
            places = places + parts[0]
        words = g.op("Gather", g.floats(self.get("embeddings.word_embeddings.weight")), "input_ids")
        x = g.op("Add", words, g.op("Slice", g.floats(places), zero, length, zero))
        if types is not None:
            x = g.op("Add", x, g.op("Gather", g.floats(parts), types))
        name = "embeddings.LayerNorm"
        x = self.norm(g.op("Reshape", x, self.flat), name, np.zeros(self.width))
        for number in range(self.layers):
            last = first and number == self.layers - 1
            x, name = self.layer(f"encoder.layer.{number}.", x, name, first=last)
        return x

    def layer(self, p: str, x: str, norm: str, *, first: bool = False) -> tuple[str, str]:
        """One layer after the normalisation `norm`; its output and the name of its own last normalisation.

        With `first`, the output is that of each row's first token alone.
        """
        g, nothing = self.graph, np.zeros(self.width)
        query, key, value, out, up, down = (
            self.get(f"{p}{part}.weight").T
            for part in (
                *(f"attention.self.{one}" for one in ("query", "key", "value")),
                *("attention.output.dense", "intermediate.dense", "output.dense"),
            )
        )
        # A bias of the keys moves all scores of a query alike, which softmax does not see; a bias of the
        # values comes through it unchanged.
        asking, shape = x, self.split
        if first:
            shape = g.constant(np.array([-1, 1, self.width]))
            asking = g.op("Gather", g.op("Reshape", x, self.split), g.constant(np.array([0])), axis=1)
            asking = g.op("Reshape", asking, self.flat)
            [(k, _)] = self.after_norm(x, norm, nothing, key)
            [(q, missing)] = self.after_norm(asking, norm, nothing, query)
        else:
            (q, missing), (k, _) = self.after_norm(x, norm, nothing, query, key)
        q = g.op("Add", q, g.floats(self.get(f"{p}attention.self.query.bias") + missing))
        v = g.op("MatMul", x, g.floats(value))
        heads: dict[str, Any] = {"q_num_heads": self.heads, "kv_num_heads": self.heads}
        three = zip((q, k, v), (shape, self.split, self.split), strict=True)
        mixed = g.op("Attention", *(g.op("Reshape", *one) for one in three), **heads)
        mixed = self.after_attention(g.op("Reshape", mixed, self.flat), out)
        bias = self.get(f"{p}attention.output.dense.bias") + self.get(f"{p}attention.self.value.bias") @ out
        mixed = g.op("Add", mixed, g.floats(bias))

        # Inner units in the order of their largest outgoing weight, for `after_gelu`.
        usual = np.maximum(np.median(np.abs(down), axis=0), 1e-12)
        order = np.argsort(-(np.abs(down) / usual).max(axis=1), kind="stable")
        up, down = up[:, order], down[order]
        down_codes = self.fine_codes(down)
        # The last bias rides on the residual, where it costs nothing.
        shift = self.get(f"{p}output.dense.bias") + self.missing_after_gelu(down_codes)
        norm = f"{p}attention.output.LayerNorm"
        y = self.norm(g.op("Add", mixed, asking), norm, shift)
        [(inner, missing)] = self.after_norm(y, norm, shift, up)
        bias = self.get(f"{p}intermediate.dense.bias")[order] - shift @ up + missing
        inner = g.op("Gelu", g.op("Add", inner, g.floats(bias)))
        outer = g.op("MatMul", inner, g.floats(down)) if self.exact else self.after_gelu(inner, down_codes)
        norm = f"{p}output.LayerNorm"
        return self.norm(g.op("Add", outer, y), norm, nothing), norm

    def norm(self, x: str, name: str, shift: Floats) -> str:
        """A layer normalisation with `shift` added to its output."""
        bias = self.graph.floats(self.get(f"{name}.bias") + shift)
        scale = self.graph.floats(self.get(f"{name}.weight"))
        return self.graph.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.epsilon)

    def after_norm(self, x: str, norm: str, shift: Floats, *weights: Floats) -> list[tuple[str, Floats]]:
        """Products of a normalisation's output."""
        g = self.graph
        if self.exact:
            return [(g.op("MatMul", x, g.floats(w)), np.zeros(w.shape[1])) for w in weights]
        inverse = 1 / np.where(gain := self.get(f"{norm}.weight"), gain, 1e-12)
        multiples = [-w.sum(axis=0) / inverse.sum() for w in weights]
        balanced = [w + inverse[:, None] * m for w, m in zip(weights, multiples, strict=True)]
        if any(np.abs(b).max() > 1.1 * np.abs(w).max() for b, w in zip(balanced, weights, strict=True)):
            # A normalisation that all but drops a channel cannot be balanced without coarser steps.
            codes, scale = g.coded_around(x)
            return [
                (g.op("Mul", g.product(codes, *_codes(w), zero=128), scale), np.zeros(w.shape[1]))
                for w in weights
            ]
        codes, scale = g.coded(x)
        level = float((inverse * (self.get(f"{norm}.bias") + shift)).sum())
        return [
            (g.op("Mul", g.product(codes, *_codes_of_sum_zero(b)), scale), -level * m)
            for b, m in zip(balanced, multiples, strict=True)
        ]

    def after_attention(self, x: str, weights: Floats) -> str:
        """The product of what attention mixed."""
        g = self.graph
        if self.exact:
            return g.op("MatMul", x, g.floats(weights))
        codes, scale = g.coded_around(x)
        return g.op("Mul", g.product(codes, *_codes(weights), zero=128), scale)

    def fine_codes(self, weights: Floats) -> tuple[Codes, Codes]:
        """Codes of all rows at the scale of the lesser ones, and of what that leaves of the first rows."""
        first = max(1, len(weights) // _FINE)
        scale = np.maximum(np.abs(weights[first:]).max(axis=0), 1e-12) / 127
        coarse = _codes(weights, scale)
        return coarse, _codes(weights[:first] - coarse[0][:first] * scale)

    def missing_after_gelu(self, codes: tuple[Codes, Codes]) -> Floats:
        """What the code 0 for -0.17 adds to a product, taken off."""
        if self.exact:
            return np.zeros(self.width)
        return -_GELU_LOW * sum(
            ((c * s.astype(np.float64)).sum(axis=0) for c, s in codes), np.zeros(self.width)
        )

    def after_gelu(self, x: str, weights: tuple[Codes, Codes]) -> str:
        """The product of GELU's output, but for `missing_after_gelu`."""
        g, (coarse, fine) = self.graph, weights
        codes, scale = g.coded_gelu(x)
        first = (g.constant(np.array([n])) for n in (0, len(fine[0]), 1))
        both = g.op("Add", g.product(codes, *coarse), g.product(g.op("Slice", codes, *first), *fine))
        return g.op("Mul", both, scale)
