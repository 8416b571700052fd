"""The sections `[accept]` and `[export]` of a distillation's settings.

[accept]
criterion = "kappa_quadratic"
margin = 0.05
teacher = "openai:MODEL@URL"     # by default the first labeler of [teach]; "none": it is not asked
base = "minilm"

[export]
folder = "labeler"
licence = "CC BY 4.0"
"""

from __future__ import annotations

from typing import Annotated, Literal

from harness.strict_toml import Field, Table, Text

__all__ = ["CRITERIA", "NONE", "Accept", "Criterion", "Export"]

NONE = "none"
"""In place of a labeler: there is none."""
Criterion = Literal["kappa", "kappa_quadratic", "kappa_binary", "auc"]
CRITERIA: dict[Criterion, str] = {
    "kappa": "kappa",
    "kappa_quadratic": "quadratic kappa",
    "kappa_binary": "binary kappa",
    "auc": "AUC",
}
"""In words."""


class Accept(Table):
    """`[accept]`: what a student has to reach.

    Attributes
    ----------
    criterion: what verdicts are about: Cohen's kappa over all grades; its quadratic kind, to which a grade
        three off is worse than one that is one off, as it is to a measure with gains; its binary kind; AUC.
    margin: by how much of it a student may fall short of its teacher.
    teacher: a labeler; by default the first one that taught; `none`: it is not asked.
    base: the labeler that the student was trained from, untrained.
    calibration: whether the student's looks at the whole `pool` of a pair's topic, or at the `pair` alone.
    fit: where calibrations and thresholds come from, the student's and the baselines': the `train` topics, or
        five `folds` of the test topics, each labeled by what the other four say.
    resamples: of the test topics, for the intervals.
    """

    criterion: Criterion = "kappa_quadratic"
    margin: Annotated[float, Field(ge=0, le=1)] = 0.05
    teacher: Text | None = None
    base: Text = "minilm"
    calibration: Literal["pool", "pair"] = "pool"
    fit: Literal["train", "folds"] = "train"
    resamples: Annotated[int, Field(ge=100)] = 2000


class Export(Table):
    """`[export]`: the labeler's folder.

    Attributes
    ----------
    folder: where; relative to the distillation's `out`. name: of the labeler, one word; by default the
        folder's.
    licence: of the data that it was trained on, as a person would say it.
    pairs: that its speed is measured on. machine_hour: what an hour of this machine costs, in the currency of
        the teacher's prices; without it, costs are compared by time alone.
    """

    folder: Text = "labeler"
    name: Annotated[str, Field(pattern=r"^[^@\s]+$")] | None = None
    licence: Text = "not stated"
    pairs: Annotated[int, Field(ge=16)] = 256
    machine_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
