"""What assessors would say of a run on all topics, if they judged few of them and a labeler all.

Topics and not pairs are the units: a measure's value on a topic, by the judgments where there are any and by
the labels alone everywhere (`harness.ppi` has the statistics). The judged topics must be a random part of all
topics, and the labels must have been made for them as for the others: without looking at their judgments.
Then the estimate is right on average however wrong the labels are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Floats, Ints
from harness.errors import SchemaError, UsageError
from harness.frames import LABELS, QRELS, check
from harness.measure import Measurement, measure
from harness.ppi import FEWEST, Cost, Powered, costs, powered_mean
from harness.scoring import judged_share

__all__ = ["DELTA", "Estimate", "Estimates", "estimate"]

DELTA = "delta"
"""Name of the difference, candidate minus base, among the estimates."""
_FEW, _UNLIKE = 10, 1.5
_ALPHA = 0.05


@dataclass(frozen=True)
class Estimate:
    """A measure's mean of one run, or the mean difference of two, over topics like these.

    Attributes
    ----------
    powered: from judgments and labels together. alone: from the judgments alone.
    labels_only: mean by the labels alone, over all topics. bias: mean of labels' minus judgments' value, over
        the judged topics. correlation: of both, over the judged topics; None if one never changes.
    worth: judged topics that would be needed without labels for the same error, as a number.
    costs: judged topics that each precision needs; `per_topic`: judgments a judged topic has, on average.
    """

    powered: Powered
    alone: Powered
    labels_only: float
    bias: float
    correlation: float | None
    worth: float | None
    costs: list[Cost]
    per_topic: float

    def to_json(self) -> dict[str, Any]:
        """One estimate as `stopgap estimate --json` prints it."""
        return {
            "value": self.powered.value,
            "ci": [self.powered.low, self.powered.high],
            "lambda": self.powered.lam,
            "human_only": {"value": self.alone.value, "ci": [self.alone.low, self.alone.high]},
            "labels_only": self.labels_only,
            "labels_bias": self.bias,
            "correlation": self.correlation,
            "worth_topics": self.worth,
            "costs": [
                {
                    "half_width": cost.half_width,
                    "human_only": self._price(cost.alone),
                    "with_labels": self._price(cost.powered),
                }
                for cost in self.costs
            ],
        }

    def _price(self, topics: int | None) -> dict[str, int] | None:
        return None if topics is None else {"topics": topics, "judgments": self.judgments(topics)}

    def judgments(self, topics: int) -> int:
        """How many judgments that many topics take, if they take as many as those judged so far."""
        return round(topics * self.per_topic)


@dataclass(frozen=True)
class Estimates:
    """What `estimate` found.

    Attributes
    ----------
    found: measure -> name of a run, or `DELTA` -> its estimate.
    judged: the judged topics, sorted. others: how many topics have labels only. judgments: of judged topics.
    notes: what to know of the input, in words.
    """

    found: dict[str, dict[str, Estimate]]
    judged: list[str]
    others: int
    judgments: int
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap estimate --json` prints."""
        return {
            "measures": {
                name: {of: one.to_json() for of, one in by_run.items()} for name, by_run in self.found.items()
            },
            "judged_topics": len(self.judged),
            "other_topics": self.others,
            "judgments": self.judgments,
            "notes": self.notes,
        }


def estimate(
    runs: Mapping[str, str | Path | pl.DataFrame],
    human: pl.DataFrame,
    labels: pl.DataFrame,
    measures: Iterable[str] = ("nDCG@10",),
    *,
    judged_topics: Iterable[str] | None = None,
    grades: list[int] | None = None,
) -> Estimates:
    """Means over topics, and the difference of two runs, from few judged topics and many labeled ones.

    Parameters
    ----------
    runs: name -> RUN or a file of one; one run, or the base and a candidate.
    human: QRELS; the rows of assessor `human` count.
    labels: LABELS (null is no label), or QRELS that hold labels only, for judged topics as for others.
    measures: as ir-measures writes them.
    judged_topics: query ids whose judgments count; by default all that have one. The judgments of other
        topics are left out.
    grades: what `probs` of the labels stand for, ascending; by default 0, 1, 2, ...

    Raises
    ------
    UsageError: no or one judged topic, judged topics without labels (they are named), labels mixed with
        judgments, a measure without a value on some topic, more than two runs, or what `measure` refuses.
        SchemaError: a frame is not what it should be.
    """
    if not 1 <= len(runs) <= 2:
        raise UsageError(f"an estimate is for one run, or a base and a candidate; {len(runs)} are given")
    if DELTA in runs and len(runs) == 2:
        raise UsageError(f"{DELTA!r} is what the difference is called; give that run another name")
    machine = _labels(labels)
    judgments = _judgments(human, machine, judged_topics)
    by_human = measure(runs, judgments, list(measures))
    by_labels = measure(runs, machine, list(measures), grades=grades)
    place = {topic: i for i, topic in enumerate(by_labels.topics)}
    gold = np.array([place[topic] for topic in by_human.topics])
    others = np.setdiff1d(np.arange(len(place)), gold)
    per_topic = judgments.height / len(gold)
    found: dict[str, dict[str, Estimate]] = {}
    for column, name in enumerate(by_human.measures):
        y, f = (_values(m, column) for m in (by_human, by_labels))
        if len(runs) == 2:
            y, f = ({**v, DELTA: np.subtract(*reversed(list(v.values())))} for v in (y, f))
        found[name] = {of: _estimate(y[of], f[of][gold], f[of][others], per_topic) for of in y}
    return Estimates(
        found,
        by_human.topics,
        len(others),
        judgments.height,
        _notes(by_human, by_labels, gold, others, judgments, machine),
    )


def _estimate(y: Floats, f: Floats, others: Floats, per_topic: float) -> Estimate:
    powered, alone = powered_mean(y, f, others), powered_mean(y, f, others, lam=0)
    varied = np.ptp(y) > 0 and np.ptp(f) > 0
    return Estimate(
        powered,
        alone,
        float(np.concatenate([f, others]).mean()),
        float((f - y).mean()),
        float(np.corrcoef(y, f)[0, 1]) if varied else None,
        len(y) * (alone.error / powered.error) ** 2 if powered.error > 0 else None,
        costs(y, f, others) if alone.error > 0 else [],
        per_topic,
    )


# -- input ---------------------------------------------------------------------------------------------------


def _labels(frame: pl.DataFrame) -> pl.DataFrame:
    """QRELS of the labels."""
    if "labeler" in frame.columns and "assessor" not in frame.columns:
        labels = check(frame, LABELS, "labels").filter(pl.col("relevance").is_not_null())
        labels = labels.rename({"labeler": "assessor"})
    else:
        labels = check(frame, QRELS, "labels")
        marked = (labels["assessor"] != "human").sum()
        if 0 < marked < labels.height:
            raise UsageError(
                f"the labels hold {labels.height - marked:,} judgments too, as filled qrels do: on judged"
                " topics such labels are for the holes only, on others for all. Next: labels of the whole"
                " pool, as stopgap fill --mode pool makes them"
            )
    if not labels.height:
        raise UsageError("the labels hold no label")
    _complete(labels, "labels")
    return labels


def _judgments(human: pl.DataFrame, machine: pl.DataFrame, wanted: Iterable[str] | None) -> pl.DataFrame:
    """The judgments of the judged topics."""
    rows = check(human, QRELS, "human").filter(pl.col("assessor") == "human")
    _complete(rows, "human")
    rows = rows.filter(pl.col("relevance") >= 0)
    judged = set(rows["query_id"].unique())
    if wanted is not None:
        asked = set(wanted)
        _refuse(asked - judged, "named as judged, but {} no judgment")
        judged, rows = asked, rows.filter(pl.col("query_id").is_in(sorted(asked)))
    if not judged:
        raise UsageError(
            "no topic is judged: the human qrels hold no row of an assessor (column 2 of TREC text is 0)"
        )
    _refuse(
        judged - set(machine["query_id"].unique()),
        "judged, but {} no label; what labels are worth is seen on topics that have both",
    )
    if len(judged) == 1:
        raise UsageError("one judged topic does not say how topics differ; judge two at least, better ten")
    return rows


def _complete(frame: pl.DataFrame, name: str) -> None:
    null = [column for column in ("query_id", "doc_id", "relevance") if frame[column].null_count()]
    if null:
        raise SchemaError(f"{name}: null in {', '.join(null)}")


def _refuse(topics: set[str], words: str) -> None:
    if topics:
        named = ", ".join(repr(t) for t in sorted(topics)[:5]) + (", ..." if len(topics) > 5 else "")
        have = words.format("has" if len(topics) == 1 else "have")
        raise UsageError(f"{len(topics)} topic{'s' * (len(topics) > 1)} ({named}): {have}")


def _values(measured: Measurement, column: int) -> dict[str, Floats]:
    """Name of a run -> one value a topic."""
    found = {name: values[column] for name, values in measured.values.items()}
    for values in found.values():
        if np.isnan(values).any():
            topic = measured.topics[int(np.isnan(values).argmax())]
            raise UsageError(f"{measured.measures[column]} has no value on topic {topic!r}")
    return found


def _notes(
    by_human: Measurement,
    by_labels: Measurement,
    gold: Ints,
    others: Ints,
    judgments: pl.DataFrame,
    machine: pl.DataFrame,
) -> list[str]:
    lines = []
    n = len(gold)
    if not len(others):
        lines.append("every labeled topic is judged: the labels add nothing")
    elif n < FEWEST:
        lines.append(f"{n} judged topics are too few to tell what the labels are worth; {FEWEST} are needed")
    if n < _FEW:
        lines.append(f"intervals of {n} topics suppose that a topic's values are spread about normally")
    share = min(float(judged_share(hits, by_human.cutoff).mean()) for hits in by_human.hits.values())
    if share < 1:
        lines.append(
            f"on judged topics {share:.0%} of a run's first {by_human.cutoff} are judged (the lowest of the"
            " runs); the rest counts as not relevant there"
        )
    if len(others):
        count = dict(machine.group_by("query_id").len().iter_rows())
        sizes = np.array([count[topic] for topic in by_labels.topics])
        a, b = sizes[gold].mean(), sizes[others].mean()
        if max(a, b) > _UNLIKE * min(a, b):
            lines.append(
                f"judged topics have {a:.0f} labels on average, others {b:.0f}: unless both are labeled"
                " alike, the estimate leans one way"
            )
        lines += _unlike(by_labels, gold, others)
    same = all(
        np.array_equal(value, by_labels.values[name][i][gold])
        for name, values in by_human.values.items()
        for i, value in enumerate(values)
    )
    if same:
        lines.append("labels and judgments give equal values on every judged topic: are they the same file?")
    return lines


def _unlike(by_labels: Measurement, gold: Ints, others: Ints) -> list[str]:
    """A word on judged topics that the labels score unlike the others (Welch's t-test, Holm over all)."""
    from scipy.stats import ttest_ind

    p = []
    for values in by_labels.values.values():
        for value in values:
            a, b = value[gold], value[others]
            if len(b) > 1 and (np.ptp(a) > 0 or np.ptp(b) > 0):
                p.append(float(ttest_ind(a, b, equal_var=False).pvalue))
    if not p or min(p) * len(p) >= _ALPHA:
        return []
    return [
        "by the labels the judged topics are easier or harder than the others (p"
        f" {min(1.0, min(p) * len(p)):.3f}): if they were not drawn at random, no interval here holds"
    ]
