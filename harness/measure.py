"""Scores of runs against a qrels, and what they rest on: judged documents, and labels among them.

Measures are written as ir-measures writes them (`nDCG@10`, `AP(rel=2)`, `RBP(p=0.8)`). Those of
`scoring.NAMES` are computed here, for all topics at once, in one pass over the run; `register` gives them to
ir-measures too, as the provider `stopgap`. Every other measure goes to ir-measures' own providers, which see
hard grades and our order of the run.

Averages run over the topics that the qrels have: a topic the run lacks counts 0 and is counted, a topic of
the run that has no judgment is left out and counted, a topic with nothing relevant counts 0.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from harness.arrays import Floats
from harness.errors import UnknownName, UsageError
from harness.gains import Hits, blocks, find
from harness.judgments import Judgments
from harness.ranking import rank
from harness.scoring import NAMES, Spec, judged_share, plain, score
from harness.trec_read import Block, ranked_blocks

if TYPE_CHECKING:
    from ir_measures import Evaluator, Measure, Metric, Provider

__all__ = ["Measurement", "measure", "parse", "register"]

DEFAULT_CUTOFF = 10
"""The k of judged@k when no measure has a cutoff."""
_SUBTOPICS = frozenset(
    {"alpha_DCG", "alpha_nDCG", "AP_IA", "ERR_IA", "nERR_IA", "NRBP", "nNRBP", "P_IA", "StRecall"}
)


@dataclass(frozen=True)
class Measurement:
    """What `measure` found.

    Attributes
    ----------
    measures: as ir-measures writes them, in the order asked for. `cutoff`: the k of judged@k.
    topics: the query ids of the qrels, sorted; every average runs over them.
    specs: the measures themselves. values: name of a run -> for each measure one value a topic, NaN where it
        is undefined. hits: name of a run -> its judged documents.
    runs: name of a run -> its numbers, as `stopgap measure --json` gives them:
        each measure's average (None where it is undefined for every topic);
        `judged@k`, the judged documents among the first k over min(k, retrieved);
        `labeled_share`, those whose grade is a label's, over the same;
        `topics`, how many the average runs over; `missing_topics`, those the run lacks, which count 0;
        `unjudged_topics`, topics of the run without a judgment, which are left out;
        `score_share`, for each measure the share of its average that would be gone if retrieved labeled
        documents counted nothing (0 to 1; None for another provider's measure when there are labels).
    """

    measures: list[str]
    cutoff: int
    topics: list[str]
    runs: dict[str, dict[str, Any]]
    specs: list[Spec | Measure]
    values: dict[str, list[Floats]]
    hits: dict[str, Hits]

    @cached_property
    def per_topic(self) -> pl.DataFrame:
        """run, query_id, measure, value (f64; null where the measure is undefined for the topic)."""
        keys = [(name, measure) for name in self.values for measure in self.measures]
        columns = [column for measured in self.values.values() for column in measured]
        row = np.repeat(np.arange(len(keys)), len(self.topics))
        return pl.DataFrame(
            {
                "run": pl.Series([name for name, _ in keys], dtype=pl.String).gather(row),
                "query_id": pl.Series(self.topics * len(keys), dtype=pl.String),
                "measure": pl.Series([measure for _, measure in keys], dtype=pl.String).gather(row),
                "value": pl.Series(np.concatenate(columns)).fill_nan(None),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap measure --json` prints."""
        return {"runs": self.runs}


def measure(
    runs: Mapping[str, str | Path | pl.DataFrame],
    qrels: pl.DataFrame,
    measures: Sequence[str],
    *,
    grades: Sequence[int] | None = None,
) -> Measurement:
    """Score runs.

    Parameters
    ----------
    runs: name -> RUN, or a file of one, which is read in blocks: memory stays bounded if topics stand as one.
    qrels: QRELS; rows whose assessor is not `human` count by expected gain and `probs` (`harness.scoring`).
    measures: as ir-measures writes them.
    grades: what the columns of `probs` stand for, ascending; by default 0, 1, 2, ...

    Raises
    ------
    UsageError: no run, no measure, measures that do not exist or are not installed (all of them are named),
        no judgment, a pair judged twice, or a run that shares no topic with the qrels.
    InputError: a file holds something that cannot be used. SchemaError: a frame does.
    """
    if not runs:
        raise UsageError("no run to measure")
    specs = parse(measures)
    judgments = Judgments(qrels, grades)
    evaluators = _evaluators([m for m in specs if not isinstance(m, Spec)], qrels)
    names = [m.text if isinstance(m, Spec) else str(m) for m in specs]
    cutoffs = [m.cutoff if isinstance(m, Spec) else m.params.get("cutoff") for m in specs]
    k = max((c for c in cutoffs if c is not None), default=DEFAULT_CUTOFF)
    found: dict[str, dict[str, Any]] = {}
    values: dict[str, list[Floats]] = {}
    seen: dict[str, Hits] = {}
    for name, run in runs.items():
        noted: dict[str, dict[str, float]] = {}
        stream = blocks(run) if isinstance(run, pl.DataFrame) else _ahead(ranked_blocks(run))
        hits = find(judgments, _noting(stream, judgments, noted) if evaluators else stream)
        if hits.missing == len(judgments.topics) and hits.unknown:
            raise _no_topic_shared(name, hits)
        seen[name] = hits
        values[name], averages = [], []
        for m in specs:
            if isinstance(m, Spec):
                by_topic = score(m, hits)
                average = float(by_topic.mean())
            else:
                by_topic, average = _theirs(m, evaluators[m], noted, judgments)
            values[name].append(by_topic)
            averages.append(None if math.isnan(average) else average)
        found[name] = {
            **dict(zip(names, averages, strict=True)),
            f"judged@{k}": float(judged_share(hits, k).mean()),
            "labeled_share": float(judged_share(hits, k, labeled=True).mean()),
            "topics": len(judgments.topics),
            "missing_topics": hits.missing,
            "unjudged_topics": len(hits.unknown),
            "score_share": {
                n: _score_share(m, hits, average)
                for n, m, average in zip(names, specs, averages, strict=True)
            },
        }
    return Measurement(names, k, judgments.topics, found, specs, values, seen)


def _ahead(stream: Iterator[Block]) -> Iterator[Block]:
    """The same blocks, the next one read while one is in use."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, stream, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, stream, None)
            yield block


def _score_share(spec: Spec | Measure, hits: Hits, average: float | None) -> float | None:
    """1 - M(labeled documents count nothing) / M; 0 where M is 0 or nothing is labeled."""
    if not hits.judgments.labeled.any():
        return 0.0
    if not isinstance(spec, Spec):
        return None
    if not average:
        return 0.0
    return min(1.0, max(0.0, 1.0 - float(score(spec, hits, human_only=True).mean()) / average))


def _no_topic_shared(name: str, hits: Hits) -> UsageError:
    theirs, ours = hits.unknown[0], hits.judgments.topics[0]
    return UsageError(
        f"run {name!r} shares no topic with the qrels: its first topic is {theirs!r}, theirs is {ours!r}."
        " Ids are text, so 007 is not 7. Next: stopgap lint RUN --qrels QRELS"
    )


# -------------------------------------------------------------------------------------- measures as text


def parse(measures: Sequence[str]) -> list[Spec | Measure]:
    """Measures out of their names: ours as `Spec`, others as ir-measures' objects; repeated ones once.

    The syntax is that of `ir_measures.parse_measure`, which Python 3.14 cannot run (it needs `ast.Num`).

    Raises
    ------
    UnknownName: one measure is bad in that nothing has its name. UsageError: it is bad otherwise, or several
    are.
    """
    if not measures:
        raise UsageError("no measure asked for. Next: -m nDCG@10")
    parsed: dict[str, Spec | Measure] = {}
    errors: list[UsageError] = []
    for text in measures:
        try:
            one = plain(text) or _full(text)
        except UsageError as error:
            errors.append(error)
        else:
            parsed.setdefault(one.text if isinstance(one, Spec) else str(one), one)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UsageError("\n".join([f"{len(errors)} measures cannot be computed:", *map(str, errors)]))
    return list(parsed.values())


def _full(text: str) -> Spec | Measure:
    measure = _measure(text)
    return _spec(measure) or _supported(measure)


def _measure(text: str) -> Measure:
    """As `ir_measures.parse_measure`, with our errors."""
    known = _ir_measures().measures.registry
    shape = UsageError(f"{text!r} is not a measure. Measures look like nDCG@10 or P(rel=2)@5")
    try:
        node = ast.parse(text.strip(), mode="eval").body
        params: dict[str, Any] = {}
        at = None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            at, node = ast.literal_eval(node.right), node.left
        if isinstance(node, ast.Call):
            if node.args or any(k.arg is None for k in node.keywords):
                raise shape
            params = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
            node = node.func
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        raise shape from None
    if not isinstance(node, ast.Name):
        raise shape
    if node.id not in known:
        alike = [name for name in known if name.lower() == node.id.lower()]
        raise UnknownName(
            "measure", node.id, known, f"Did you mean {alike[0]!r}? Case counts." if alike else ""
        )
    base = known[node.id]
    if at is not None:
        params[base.AT_PARAM] = at
    return _checked(text, base, params)


def _checked(text: str, base: Any, params: dict[str, Any]) -> Measure:
    problems = []
    for name, value in params.items():
        info = base.SUPPORTED_PARAMS.get(name)
        if info is None:
            takes = ", ".join(base.SUPPORTED_PARAMS) or "no parameter"
            problems.append(f"there is no parameter {name!r} (it takes {takes})")
        elif not info.validate(value) or (isinstance(value, bool) and info.dtype is int):
            choices = info.choices if isinstance(info.choices, list) else info.dtype and info.dtype.__name__
            problems.append(f"{name} cannot be {value!r} (allowed: {choices})")
        elif name == "cutoff" and value < 1:
            problems.append(f"the cutoff cannot be {value}; it counts ranks from 1")
        elif name == "rel" and value < 0:
            problems.append(f"rel cannot be {value}; negative grades are never relevant")
    for name, info in base.SUPPORTED_PARAMS.items():
        if info.required and name not in params:
            value = 0.1 if info.dtype is float else 10
            example = f"{base.NAME}@{value}" if name == base.AT_PARAM else f"{base.NAME}({name}=...)"
            problems.append(f"{name} is missing, as in {example}")
    if base.NAME == "RBP" and not 0.0 < params.get("p", 0.8) < 1.0:
        problems.append(f"p is a probability between 0 and 1, not {params['p']}")
    if base.NAME in _SUBTOPICS:
        problems.append(
            "it needs judgments by subtopic, and a qrels here has none (column 2 says who judged)"
        )
    if problems:
        raise UsageError(f"measure {text!r}: {'; '.join(problems)}")
    made: Measure = base(**params)
    return made


def _spec(parsed: Measure) -> Spec | None:
    """The measure as ours, or None if it is not."""
    return Spec.of(parsed.NAME, str(parsed), parsed.params) if parsed.NAME in NAMES else None


# ------------------------------------------------------------------------------------------- ir-measures


def _ir_measures() -> Any:
    """The package, imported when it is first needed: most measurements do without."""
    import ir_measures

    return ir_measures


@cache
def register() -> Provider:
    """Register our provider in ir-measures as `stopgap`, first in its default pipeline, and return it.

    From then on `ir_measures.calc_aggregate` and its kin use it too, with everything ir-measures takes
    (iterables of namedtuples, dicts, pandas frames); `provider.evaluator(measures, QRELS)` also takes our
    frames, labels included.
    """
    import ir_measures as irm

    base: Any = _ir_measures().providers.base
    known: Any = _ir_measures().measures
    any_value, gains = base.Any(), base.Choices("log2", "exp-log2")

    class StopgapEvaluator(irm.Evaluator):
        """Scores runs against one set of judgments."""

        def __init__(self, measures: Iterable[Measure], qrels: Any) -> None:
            self._judgments = Judgments(qrels if isinstance(qrels, pl.DataFrame) else _qrels_frame(qrels))
            super().__init__(list(measures), set(self._judgments.topics))

        def _iter_calc(self, run: Any) -> Iterator[Metric]:
            hits = find(self._judgments, blocks(run if isinstance(run, pl.DataFrame) else _run_frame(run)))
            for one in self.measures:
                spec = _spec(one)
                assert spec is not None  # the provider supports no other
                values = score(spec, hits).tolist()
                for query, value in zip(self._judgments.topics, values, strict=True):
                    yield irm.Metric(query_id=query, measure=one, value=value)

    class StopgapProvider(irm.Provider):
        """stopgap's vectorised measures."""

        NAME = "stopgap"
        SUPPORTED_MEASURES = [  # noqa: RUF012  # as the base class has it
            known._nDCG(cutoff=any_value, dcg=gains, gains=any_value, judged_only=any_value),
            known._AP(cutoff=any_value, rel=any_value, judged_only=any_value),
            known._RR(cutoff=any_value, rel=any_value, judged_only=any_value),
            known._P(cutoff=any_value, rel=any_value, judged_only=any_value),
            known._R(cutoff=any_value, rel=any_value, judged_only=any_value),
            known._Success(cutoff=any_value, rel=any_value, judged_only=any_value),
            known._Judged(cutoff=any_value),
            known._RBP(cutoff=any_value, p=any_value, rel=any_value),
            known._Bpref(rel=any_value),
            known._Rprec(rel=any_value, judged_only=any_value),
        ]

        def _evaluator(self, measures: Iterable[Measure], qrels: Any) -> Evaluator:
            return StopgapEvaluator(measures, qrels)

    provider: Provider = base.register(cast("Any", StopgapProvider)())
    irm.DefaultPipeline.providers.insert(0, provider)
    return provider


def _qrels_frame(qrels: Any) -> pl.DataFrame:
    rows = list(_ir_measures().util.QrelsConverter(qrels).as_namedtuple_iter())
    return pl.DataFrame(
        {
            "query_id": pl.Series([r.query_id for r in rows], dtype=pl.String),
            "doc_id": pl.Series([r.doc_id for r in rows], dtype=pl.String),
            "relevance": pl.Series([r.relevance for r in rows], dtype=pl.Int16),
        }
    ).with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit("human"))


def _run_frame(run: Any) -> pl.DataFrame:
    rows = list(_ir_measures().util.RunConverter(run).as_namedtuple_iter())
    return rank(
        pl.DataFrame(
            {
                "query_id": pl.Series([r.query_id for r in rows], dtype=pl.String),
                "doc_id": pl.Series([r.doc_id for r in rows], dtype=pl.String),
                "score": pl.Series([r.score for r in rows], dtype=pl.Float64),
            }
        )
    )


def _supported(parsed: Measure) -> Measure:
    """The measure, if a provider that is installed has it."""
    register()
    able = [p for p in _ir_measures().DefaultPipeline.providers if p.supports(parsed)]
    if any(p.is_available() for p in able):
        return parsed
    needed = " or ".join(p.install_instructions() or p.NAME for p in able)
    hint = f"Next: {needed}" if needed else "No provider of ir-measures computes it so."
    raise UsageError(f"measure {str(parsed)!r} is not available here. {hint}")


def _noting(
    stream: Iterable[Block], judgments: Judgments, noted: dict[str, dict[str, float]]
) -> Iterator[Block]:
    """Pass blocks on; note the documents of judged topics, with scores of our order that have no ties."""
    for block in stream:
        if block.restart:
            noted.clear()
        bounds = block.starts.tolist()
        for query, begin, end in zip(block.topics.to_list(), bounds[:-1], bounds[1:], strict=True):
            if query in judgments.index:
                ids = block.doc_id[begin:end].to_list()
                noted[query] = {d: float(len(ids) - i) for i, d in enumerate(ids)}
        yield block


def _evaluators(measures: list[Measure], qrels: pl.DataFrame) -> dict[Measure, Evaluator]:
    """One each, since ir-measures gives topics without a value another default when evaluators are joined."""
    hard: dict[str, dict[str, int]] = {}
    for query, document, relevance in qrels.select("query_id", "doc_id", "relevance").iter_rows():
        hard.setdefault(query, {})[document] = relevance
    return {m: _ir_measures().evaluator([m], hard) for m in measures}


def _theirs(
    measure: Measure, evaluator: Evaluator, run: dict[str, dict[str, float]], judgments: Judgments
) -> tuple[Floats, float]:
    """The values by topic, NaN where there is none, and their aggregate as ir-measures makes it."""
    values = np.full(len(judgments.topics), np.nan)
    aggregator = measure.aggregator()
    try:
        for metric in evaluator.iter_calc(run):
            values[judgments.index[metric.query_id]] = metric.value
            aggregator.add(metric.value)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"ir-measures' provider of {measure} failed: {what}") from error
    return values, float(aggregator.result())
