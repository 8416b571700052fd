"""May this change be merged? Checks of `stopgap.toml`, each with a verdict, and one verdict over all.

A measure passes if the candidate is not worse than the baseline by more than a margin: the 95 % interval of
their difference lies above -margin (a test of non-inferiority: Piaggio et al., JAMA 2012). It fails if the
interval lies below -margin, and is inconclusive otherwise: an insignificant loss is not taken for none.

What is missing or cannot be read (a baseline, a lock, a qrels) is bad input, exit code 2, with the next
command. What can be compared and is not what was accepted (a changed qrels, a run that lacks a topic or has
strange ones) is a check that fails, exit code 1.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import polars as pl

from harness.compare import Compared, Comparison, compare
from harness.errors import InputError, UnknownName
from harness.frames import Runs
from harness.gate_agreement import check_agreement
from harness.gate_config import Settings, read_settings
from harness.gate_lock import compare_locks, make_lock, read_lock, write_json
from harness.gate_output import Check, Gated, Verdict
from harness.gate_trust import check_circularity, check_diagnosis, check_simulation
from harness.slices import masks, read_slices
from harness.throughput import Timed, check_throughput, read_evidence, read_results
from harness.trec import qrels_grades, read_qrels, read_run, run_name, run_paths

__all__ = ["check_margin", "check_topics", "gate"]

_NAMED = 5  # topics or labelers that a message names


def gate(path: str | Path = "stopgap.toml", *, accept: bool = False) -> Gated:
    """Run the checks of a file of settings (`harness.gate_config`).

    Parameters
    ----------
    accept: first take the qrels, baseline, slices and timings as they are now for the accepted ones, and
        write the lock and the timings' evidence. The checks then run as always: a candidate is not accepted.

    Raises
    ------
    InputError: the settings, or a file they name, is missing or cannot be used. UsageError and its kin: as
    `harness.compare.compare`.
    """
    settings = read_settings(path)
    command = f"stopgap gate {shlex.quote(str(path))} --accept"
    gated = Gated([])
    ids: list[str] = []
    evidence: dict[Path, dict[str, Any]] = {}  # written when all is known to be readable
    if settings.qrels is not None and settings.baseline is not None:
        evidence[settings.lock], ids = _check_runs(
            settings, settings.qrels, settings.baseline, accept, command, gated
        )
    if (wanted := settings.checks.agreement) is not None:
        human, labels = settings.at(wanted.human), settings.at(wanted.labels)
        gated.checks.append(check_agreement(human, labels, wanted.kappa))
    if (simulated := settings.checks.simulation) is not None:
        gated.checks.append(check_simulation(settings.at(simulated.results), simulated))
    if (diagnosed := settings.checks.diagnosis) is not None:
        gated.checks.extend(check_diagnosis(settings.at(diagnosed.results), diagnosed))
    if (timings := settings.checks.throughput) is not None:
        stored = settings.at(timings.evidence)
        timed = read_results(settings.at(timings.results), ", ".join(ids) or None)
        then = timed if accept else read_evidence(stored, command)
        gated.checks.extend(check_throughput(timed, then, timings.slowdown, command))
        gated.notes.append(_when(timings.results, timed, then))
        evidence[stored] = timed.to_json()
    for file, value in evidence.items() if accept else ():
        write_json(file, value)
        gated.accepted.append(file)
    return gated


def _when(results: str, now: Timed, then: Timed) -> str:
    """What a reader should know of timings that may be old."""
    labels = ""
    if now.labeler != then.labeler:
        labels = f" The evidence was stored with labels of {then.labeler or 'nobody'}."
    date, commit = now.about.get("date", "date unknown"), now.about.get("commit", "unknown")
    return (
        f"Timings in {results}: {date}, commit {commit}, reference {now.seconds:.4g} s (stored:"
        f" {then.seconds:.4g} s).{labels}"
    )


# -- runs ----------------------------------------------------------------------------------------------------


def _check_runs(
    settings: Settings,
    qrels: str,
    baseline: str,
    accept: bool,
    command: str,
    gated: Gated,
) -> tuple[dict[str, Any], list[str]]:
    """Add every check of the runs to `gated`; returns the lock as it would be now, and who made labels."""
    judged_file, base_file = _file(settings, "qrels", qrels), _file(settings, "baseline", baseline)
    files = _files(settings, base_file)
    lock = None if accept else read_lock(settings.lock, command)
    runs = {name: read_run(file) for name, file in files.items()}
    judged = read_qrels(judged_file)
    slices_file = _file(settings, "slices", settings.slices) if settings.slices else None
    slices = _slices(settings, slices_file, judged) if slices_file else None
    found = compare(
        runs,
        judged,
        settings.measures,
        grades=qrels_grades(judged_file),
        margins=settings.margins,
        slices=slices,
    )
    scores = {measure: found.measurement.runs[found.base][measure] for measure in found.measures}
    now = make_lock(judged_file, base_file, slices_file, judged["query_id"], scores)
    gated.checks.extend(compare_locks(now, now if lock is None else lock, command))
    gated.checks.extend(check_topics(runs, judged, settings.checks.missing_topics, _collection(settings)))
    gated.checks.extend(_check_ties(runs))
    if settings.labeler is not None:
        gated.checks.append(_check_labeler(judged, settings.labeler))
    gated.checks.extend(check_circularity(files, judged, settings.checks.allow_circular))
    for candidate in found.candidates:
        for measure, one in found.found[candidate].items():
            name = f"{measure} of {candidate}"
            gated.checks.append(check_margin(name, one, settings.margins[measure]))
        gated.checks.extend(_check_slices(settings, slices, found, candidate))
    gated.checks.extend(_check_shares(settings, found))
    gated.notes.extend(found.notes)
    return now, judged.filter(pl.col("assessor") != "human")["assessor"].unique().sort().to_list()


def _file(settings: Settings, key: str, given: str) -> Path:
    """The file that a key names, which has to be there."""
    path = settings.at(given)
    if path.is_file():
        return path
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, names, n=3)
    hint = f"Near it: {', '.join(str(path.parent / n) for n in near)}" if near else ""
    raise settings.problem(key, f"{key}: no such file: {path}", hint or f"Next: correct the key {key}")


def _files(settings: Settings, baseline: Path) -> dict[str, Path]:
    """Name -> file of each run, the baseline first.

    A baseline may have the name of a candidate, as where both are `hybrid.run` in folders of their own.
    """
    given = [
        settings.at(run) if set(run) & set("*?[") else _file(settings, "runs", run) for run in settings.runs
    ]
    candidates = run_paths(given)
    name = run_name(baseline)
    while name in candidates:
        name = f"{name} (baseline)"
    return {name: baseline, **candidates}


def _collection(settings: Settings) -> set[str] | None:
    if settings.collection is None:
        return None
    from harness.collection import open_collection

    return set(open_collection(settings.collection).topics["query_id"])


def check_margin(name: str, one: Comparison, margin: float, kind: str = "margin") -> Check:
    """Whether a candidate is not worse than the baseline by more than `margin` (from 0 on).

    Runs that are the same on every topic pass at any margin, 0 among them; unless that says nothing, as where
    both have 0 throughout.
    """
    low, high = one.ci
    same = one.wins == one.losses == 0
    verdict: Verdict = "inconclusive"
    zero = one.base == one.candidate == 0 and one.bounds not in (None, (0.0, 0.0))
    if same and (zero or one.verdict == "inconclusive"):
        pass  # the unjudged documents of two runs may differ where their scores do not
    elif low > -margin or (same and low == high == 0):
        verdict = "pass"
    elif high < -margin or (margin == 0 and one.verdict == "worse"):
        verdict = "fail"
    said = f"{one.base:.4f} to {one.candidate:.4f}, {one.delta:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
    counts = f"{one.wins} of {one.topics} topics won, {one.losses} lost."
    detail = f"{said}; {counts}" if verdict == "pass" else f"{said}. {one.why or counts}"
    return Check(kind, name, verdict, one.delta, 0.0 - margin, detail, one.ci)


def check_topics(
    runs: Runs, qrels: pl.DataFrame, allowed: int = 0, collection: set[str] | None = None
) -> list[Check]:
    """Whether the runs are about the topics of the qrels: one check a run, the baseline first.

    A run fails if it lacks more than `allowed` topics of the qrels, or has topics of another set: such as are
    not in the collection or, where none is given, neither in the qrels nor in the baseline.

    Parameters
    ----------
    runs: name -> RUN, the baseline first. `collection`: query ids of the collection's topics.
    """
    judged = set(qrels["query_id"])
    topics = {name: set(run["query_id"]) for name, run in runs.items()}
    known = (judged | next(iter(topics.values()))) if collection is None else collection
    checks = []
    if collection is not None and (strange := sorted(judged - collection)):
        said = f"the qrels have {_some(strange)}, which the collection has not"
        checks.append(Check("topics", "topics of the qrels", "fail", float(len(strange)), 0.0, said))
    for name, own in topics.items():
        missing, strange = sorted(judged - own), sorted(own - known)
        told = []
        if missing:
            told.append(f"lacks {_some(missing)} of the qrels, which count 0")
        if strange:
            where = "the collection" if collection is not None else "the qrels and the baseline"
            told.append(
                f"has {_some(strange)} that {where} know nothing of: is it a run of another topic set?"
            )
        failed = len(missing) > allowed or bool(strange)
        detail = "; ".join(told) or f"has all {len(judged)} topics of the qrels"
        checks.append(
            Check(
                "topics",
                f"missing topics of {name}",
                "fail" if failed else "pass",
                len(missing),
                allowed,
                detail,
            )
        )
    return checks


def _check_ties(runs: Runs) -> list[Check]:
    """A check for each run that scores all documents of every topic alike: its order means nothing."""
    checks = []
    for name, run in runs.items():
        scores = run.group_by("query_id").agg(alike=pl.col("score").n_unique() == 1, several=pl.len() > 1)
        if scores["alike"].all() and scores["several"].any():
            said = "every document of a topic has one score, so that the order means nothing"
            checks.append(Check("ties", f"order of {name}", "inconclusive", None, None, said))
    return checks


def _check_shares(settings: Settings, found: Compared) -> list[Check]:
    """The floor on judged@k and the ceiling on labels, for the baseline as for the candidates."""
    checks = []
    k = found.measurement.cutoff
    floor, ceiling = settings.checks.judged, settings.checks.labeled_share
    for name, numbers in found.measurement.runs.items():
        if floor is not None:
            value = float(numbers[f"judged@{k}"])
            said = f"{value:.1%} of the first {k} documents have a grade"
            if value < floor:
                said += ". Next: stopgap holes, then stopgap fill or stopgap plan"
            checks.append(
                Check(
                    "judged",
                    f"judged@{k} of {name}",
                    "pass" if value >= floor else "fail",
                    value,
                    floor,
                    said,
                )
            )
        if ceiling is not None:
            value = float(numbers["labeled_share"])
            said = f"{value:.1%} of the first {k} documents have a labeler's grade"
            if value > ceiling:
                said += ". Next: stopgap plan, to see which of them an assessor should judge"
            verdict: Verdict = "pass" if value <= ceiling else "fail"
            checks.append(Check("labeled_share", f"labeled share of {name}", verdict, value, ceiling, said))
    return checks


def _check_labeler(qrels: pl.DataFrame, wanted: str) -> Check:
    """Whether every label of the qrels is of the labeler that the settings name."""
    labels = qrels.filter(pl.col("assessor") != "human")
    ids = labels["assessor"].unique().sort().to_list()
    others = [one for one in ids if one != wanted and not one.startswith((f"{wanted}@", f"{wanted}/"))]
    told = ", ".join(ids) or "nobody: the qrels hold no label"
    if not others:
        return Check("labeler", "labeler", "pass", ", ".join(ids) or None, wanted, f"labels are of {told}")
    if others == ["label"]:
        said = "the qrels do not say who made their labels: the Parquet twin beside them is missing"
        return Check("labeler", "labeler", "inconclusive", "label", wanted, said)
    return Check("labeler", "labeler", "fail", ", ".join(ids), wanted, f"labels are of {told}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} topic{'s' * (len(names) != 1)} ({', '.join(map(repr, names[:_NAMED]))}{more})"


# -- slices --------------------------------------------------------------------------------------------------


def _slices(settings: Settings, path: Path, qrels: pl.DataFrame) -> pl.DataFrame:
    """query_id and the columns that the settings name.

    Raises
    ------
    InputError: as `harness.slices.read_slices`; it lacks a column or a slice that the settings name, or a
        topic of the qrels or its value.
    """
    table = read_slices(path)
    columns: list[str] = []
    for name in settings.slice_margins:
        column = _column(name, table.columns)
        if column is None:
            unknown = UnknownName(
                "column of slices", name.partition("=")[0], set(table.columns) - {"query_id"}
            )
            raise settings.problem(name, str(unknown))
        columns += [column] if column not in columns else []
    table = table.select("query_id", *columns)
    topics = qrels["query_id"].unique().sort()
    rows = topics.to_frame().join(table, on="query_id", how="left", maintain_order="left")
    for column in columns:
        if len(blank := rows.filter(pl.col(column).fill_null("").str.strip_chars() == "")["query_id"]):
            raise InputError(path, None, f"no {column} for {_some(blank.to_list())} of the qrels")
    known = list(masks(table, topics.to_list()))
    for name in settings.slice_margins:
        if name not in columns and name not in known:
            raise settings.problem(name, str(UnknownName("slice", name, known)))
    return table


def _column(name: str, columns: Sequence[str]) -> str | None:
    """The column that `column` or `column=value` names, if it is one of `columns`."""
    named = [c for c in columns if c != "query_id" and (name == c or name.startswith(f"{c}="))]
    return max(named, key=len, default=None)


def _check_slices(
    settings: Settings, slices: pl.DataFrame | None, found: Compared, candidate: str
) -> list[Check]:
    """Non-inferiority within slices; a margin of `kind=fact` comes before one of `kind`."""
    if slices is None:
        return []
    checks = []
    for key, by_candidate in found.slices.items():
        column = _column(key, slices.columns) or key
        allowed = settings.slice_margins.get(key, settings.slice_margins.get(column, {}))
        for measure, margin in allowed.items():
            one = by_candidate[candidate][measure]
            checks.append(check_margin(f"{measure} of {candidate}, {key}", one, margin, "slice_margin"))
    return checks
