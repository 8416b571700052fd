"""`[train]`: which student is taught, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from harness.strict_toml import Field, Table, Text

__all__ = ["EMBEDDED", "ENCODER", "ENCODER_KEYS", "OTHERS_KEYS", "Lora", "Loss", "Train", "Warmup"]

Loss = Literal["kl", "ordinal", "mse", "lce"]
EMBEDDED = "minilm"
"""In place of a folder: the weights that come with stopgap."""
ENCODER = "encoder"
"""The student that is a head on a frozen encoder."""
ENCODER_KEYS = ("student", "model", "dev_share", "balance")
"""The keys that mean something for it."""
OTHERS_KEYS = {"prompt": "causal-lm", "head_learning_rate": "cross-encoder"}
"""Keys that mean something for one of the other students only."""

_Some = Annotated[int, Field(ge=1)]
_Rate = Annotated[float, Field(gt=0, le=1)]
_Share = Annotated[float, Field(ge=0, lt=1)]


class Lora(Table):
    """`[train.lora]`: an adapter is learnt on all linear layers, and the model stays as it is.

    Attributes
    ----------
    r: its rank. alpha: its effect is multiplied by alpha / r. dropout: share of its inputs left out.
    """

    r: _Some = 16
    alpha: _Some = 32
    dropout: _Share = 0.0


class Warmup(Table):
    """`[train.warmup]`: what is learnt before the grades, from pairs that nobody has graded.

    Attributes
    ----------
    labeler: whose score is imitated. pairs: how many, half of them a query with documents of other queries.
    epochs: times that each is seen.
    """

    labeler: Text = EMBEDDED
    pairs: _Some = 2000
    epochs: _Some = 1


class Train(Table):
    """The section.

    Attributes
    ----------
    student: `encoder`, a few numbers on what a frozen sentence encoder sees of a pair; `cross-encoder`, which
        reads query and document together; or `causal-lm`, which is asked for the grade as `hf:` asks.
    model: what it starts from: a folder, the id of a model in the hub's cache, or `minilm` (the embedded
        encoder; not for a causal-lm).
    loss: by name (`labelers.distill.losses`).
    epochs: times that each pair is seen, at most. patience: epochs in a row without a lower loss on the dev
        topics after which training ends.
    learning_rate: the greatest; by default the student's own. head_learning_rate: for layers that are new;
        by default ten times that. ramp: share of the steps in which they rise; after that they fall to 0.
    batch: pairs in one pass. accumulate: passes in one step.
    tokens: how much is read of a pair (cross-encoder) or of a document (causal-lm), at most.
    lora: an adapter is learnt; without it the whole model, or for a causal-lm one with the defaults.
    bf16: products in bfloat16; by default on CUDA. device: `auto`, or what torch calls a device.
    dev_share: share of the topics by which one sees when to stop; 0: none, and all epochs are run.
    balance: 0 weighs all pairs alike, 1 all grades alike; between, a grade's weight is the power of it.
    checkpoint: steps after which what has been learnt is saved, besides the end of each epoch.
    prompt: what a causal-lm is asked, as in `hf:…?prompt=`.
    """

    student: Literal["encoder", "cross-encoder", "causal-lm"] = "encoder"
    model: Text = EMBEDDED
    loss: Loss = "kl"
    epochs: _Some = 4
    patience: _Some = 2
    learning_rate: _Rate | None = None
    head_learning_rate: _Rate | None = None
    ramp: _Share = 0.1
    batch: _Some = 16
    accumulate: _Some = 1
    tokens: Annotated[int, Field(ge=16)] = 256
    lora: Lora | None = None
    bf16: bool | None = None
    device: Text = "auto"
    dev_share: _Share = 0.15
    balance: Annotated[float, Field(ge=0, le=1)] = 0.5
    checkpoint: _Some = 100
    prompt: Text = "umbrela"
    warmup: Warmup | None = None
