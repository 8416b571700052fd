"""The verbs that say whether a change is better and what that rests on; `harness.cli` names them.

A verb imports what it needs when it is called, so that `stopgap --help` stays quick.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from harness import _options as words
from harness import _terminal as terminal
from harness._inputs import (
    expand,
    label_files,
    margins,
    named_labels,
    open_texts,
    read_ids,
    read_judged,
    scale,
    writable,
)
from harness.errors import UsageError

__all__ = ["agree", "compare", "diagnose", "estimate", "gate", "plan", "report", "simulate"]

_SETTINGS = Path("stopgap.toml")
"""Of the gate, unless another file is named."""


def compare(
    runs: words.Compared,
    qrels: words.QrelsFile,
    measures: words.Measures = None,
    margin: words.Margins = None,
    correction: words.Correction = "holm",
    slices: words.Slices = None,
    every: words.All = False,
    seed: words.Seed = 0,
    as_json: words.AsJson = False,
) -> None:
    """Say whether candidates are better than the base, how sure that is, and what it rests on."""
    from harness import _compared
    from harness.trec import qrels_grades, run_paths

    paths, judged, grades = run_paths(runs), read_judged(qrels), qrels_grades(qrels)
    asked = measures or ["nDCG@10"]
    if every:
        from harness.groups import compare_all

        if margin or slices:
            raise UsageError(
                "--all takes neither --margin nor --slices: every pair is compared on all topics"
            )
        groups = compare_all(paths, judged, asked, grades=grades, seed=seed)
        if as_json:
            terminal.json({"groups": {m: found.to_json() for m, found in groups.items()}})
            return
        for number, found in enumerate(groups.values()):
            terminal.write("\n" * (number > 0) + _compared.groups_title(found))
            terminal.table(*_compared.groups_table(found))
        return
    from harness.compare import compare as compare_runs
    from harness.slices import read_slices

    result = compare_runs(
        paths,
        judged,
        asked,
        grades=grades,
        margins=margins(margin or []),
        correction=correction,
        slices=read_slices(slices) if slices else None,
        seed=seed,
    )
    if as_json:
        terminal.json(result.to_json())
    else:
        terminal.table(*_compared.table(result))
        terminal.write(f"\n{_compared.notes(result)}")
    if "inconclusive" in result.verdicts:
        raise typer.Exit(terminal.INCONCLUSIVE)


def plan(
    runs: words.TwoRuns,
    qrels: words.QrelsFile,
    measure: words.OneMeasure = "nDCG@10",
    collection: words.TextsOf = None,
    count: words.Count = 20,
    out: words.ListFile = None,
    answers: words.Answers = None,
    merged: words.Merged = None,
    all_topics: words.AllTopics = False,
    as_json: words.AsJson = False,
) -> None:
    """Name the judgments that would settle a verdict soonest."""
    from harness import _compared
    from harness.plan import plan as make
    from harness.plan import read_answers, write_list
    from harness.plan_pool import scale_of
    from harness.pool import pool
    from harness.trec import qrels_grades, read_runs, write_qrels

    if len(ranked := read_runs(runs)) != 2:
        raise UsageError(f"a plan is for two runs, a base and a candidate; {len(ranked)} are given")
    if merged is not None and answers is None:
        raise UsageError("--merged writes what --answers brings; give both")
    opened = open_texts(collection)
    judged, grades = read_judged(qrels), qrels_grades(qrels)
    grades = grades or sorted(opened.grades if opened else scale_of(judged, None))
    if answers is not None:
        judged = read_answers(answers, judged, grades, pairs=pool(ranked, 10**6))
    if merged is not None:
        writable(merged, str(answers))
        write_qrels(judged, merged, grades=grades)
    topics = sorted({q for run in ranked.values() for q in run["query_id"].unique()}) if all_topics else None
    base, candidate = ranked.values()
    made = make(base, candidate, judged, measure, grades=grades, count=count, topics=topics)
    if out is not None:
        write_list(made, out, opened)
    written = {"out": str(out) if out else None, "merged": str(merged) if merged else None}
    columns, rows = _compared.plan_table(made)
    terminal.show(as_json, made.to_json() | written, columns, rows, _compared.plan_notes(made, written))
    if not made.settled:
        raise typer.Exit(terminal.INCONCLUSIVE)


def agree(
    human: words.HumanFile,
    labels: words.LabelFiles,
    runs: words.OrderedRuns = None,
    measures: words.Measures = None,
    second: words.SecondFile = None,
    grades: words.Scale = None,
    seed: words.Seed = 0,
    as_json: words.AsJson = False,
) -> None:
    """Say how far labels agree with assessors, beside how far assessors agree."""
    from harness import _agreed
    from harness.agree import agree as compare_labels
    from harness.trec import qrels_grades, run_paths

    if measures and not runs:
        raise UsageError("-m says what to order runs by, and no run is given")
    judged = read_judged(human)
    named = named_labels(labels, human)
    scales = [stated for file in expand(labels) if (stated := qrels_grades(file))]
    result = compare_labels(
        judged,
        named,
        grades=scale(grades) or max(scales, key=len, default=None),
        runs=run_paths(runs) if runs else None,
        measures=measures or ["nDCG@10"],
        second=read_judged(second) if second else None,
        seed=seed,
    )
    if as_json:
        terminal.json(result.to_json())
        return
    terminal.tables(_agreed.tables(result), _agreed.notes(result))


def estimate(
    runs: words.OneOrTwoRuns,
    human: words.HumanFile,
    labels: words.LabelsFile,
    measures: words.Measures = None,
    judged_topics: words.JudgedTopics = None,
    as_json: words.AsJson = False,
) -> None:
    """Estimate scores and their difference from few judged topics and many labeled ones."""
    from harness import _estimated
    from harness.estimate import estimate as make
    from harness.trec import qrels_grades, run_paths

    found = make(
        run_paths(runs),
        read_judged(human),
        read_judged(labels),
        measures or ["nDCG@10"],
        judged_topics=read_ids(judged_topics) if judged_topics else None,
        grades=qrels_grades(labels),
    )
    if as_json:
        terminal.json(found.to_json())
        return
    terminal.tables(_estimated.tables(found), _estimated.notes(found))


def simulate(
    runs: words.RunFiles,
    qrels: words.QrelsFile,
    leave_out: words.LeaveOut,
    labels: words.SimulatedLabels = None,
    labeler: words.SimulatedLabelers = None,
    collection: words.TextsOf = None,
    groups: words.GroupsFile = None,
    by: words.By = "team",
    measures: words.Measures = None,
    depth: words.HolesDepth = 10,
    budget: words.Budgets = None,
    rate: words.Rates = None,
    seeds: words.Seeds = 3,
    ledger: words.LedgerFolder = ".stopgap/ledger",
    seed: words.Seed = 0,
    as_json: words.AsJson = False,
) -> None:
    """Make holes in complete qrels, fill them, and say what that does to verdicts."""
    from harness import _simulated
    from harness.simulate import read_groups, signals_of
    from harness.simulate import simulate as make_holes
    from harness.trec import run_paths

    paths, judged, opened = run_paths(runs), read_judged(qrels), open_texts(collection)
    given = read_judged(labels) if labels else None
    teams = read_groups(groups, list(paths), by) if groups else None
    with terminal.progress("signals") as progress:
        heard = signals_of(labeler or [], opened, judged, ledger=ledger, progress=progress)
    with terminal.progress("fits") as progress:
        found = make_holes(
            paths,
            judged,
            leave_out=leave_out,
            labels=given,
            signals=heard,
            groups=teams,
            measures=measures or ["nDCG@10"],
            depth=depth,
            budgets=budget or [],
            rates=rate or [0.5],
            seeds=seeds,
            grades=sorted(opened.grades) if opened else None,
            seed=seed,
            progress=progress,
        )
    if as_json:
        terminal.json(found.to_json())
        return
    terminal.tables(_simulated.tables(found), _simulated.notes(found))


def diagnose(
    runs: words.SomeRuns = None,
    human: words.SomeHuman = None,
    labels: words.SomeLabels = None,
    collection: words.TextsOf = None,
    labeler: words.OneLabeler = None,
    measures: words.Measures = None,
    groups: words.GroupsFile = None,
    by: words.By = "team",
    allow: words.AllowCircular = None,
    grades: words.Scale = None,
    sample: words.Sample = 200,
    ledger: words.LedgerFolder = ".stopgap/ledger",
    seed: words.Seed = 0,
    as_json: words.AsJson = False,
) -> None:
    """Say where labels go wrong: for which texts, topics and systems, and why."""
    from harness import _diagnosed
    from harness.diagnose import diagnose as examine
    from harness.labeling import load
    from harness.ledger import Ledger
    from harness.simulate import read_groups
    from harness.trec import run_paths

    paths = run_paths(runs) if runs else None
    opened = open_texts(collection)
    if labeler is not None and opened is None:
        raise UsageError("--labeler is tested on texts. Next: --collection with where they are")
    judged = opened.qrels() if human is None and opened and labeler else None
    with terminal.progress("labels") as progress:
        found = examine(
            read_judged(human) if human is not None else judged,
            label_files(labels or []),
            grades=scale(grades),
            collection=opened,
            runs=paths,
            groups=read_groups(groups, list(paths), by) if groups and paths else None,
            measures=measures or ["nDCG@10"],
            labeler=load(labeler, opened.grades) if labeler is not None and opened else None,
            allow=allow or [],
            sample=sample,
            ledger=Ledger(ledger) if labeler is not None else None,
            seed=seed,
            progress=progress,
        )
    if as_json:
        terminal.json(found.to_json())
    else:
        terminal.tables(_diagnosed.tables(found), "\n".join(found.words))
    if found.blocked:
        raise typer.Exit(terminal.BAD_INPUT)


def gate(
    settings: words.Settings = _SETTINGS,
    accept: words.Accept = False,
    junit: words.Junit = None,
    markdown: words.Markdown = None,
    as_json: words.AsJson = False,
) -> None:
    """Check runs and timings against what was accepted, for tox and CI."""
    from harness import gate_output
    from harness.gate import gate as check

    gate_output.prepare(junit, markdown)
    found = check(settings, accept=accept)
    if junit is not None:
        gate_output.write(junit, gate_output.junit(found))
    if markdown is not None:
        gate_output.write(markdown, gate_output.markdown(found))
    terminal.show(
        as_json, found.to_json(), ["check", "verdict", "value", "threshold"], found.rows(), found.words()
    )
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def report(
    runs: words.Compared,
    qrels: words.QrelsFile,
    out: words.PageFile,
    measures: words.Measures = None,
    collection: words.TextsOf = None,
    margin: words.Margins = None,
    slices: words.Slices = None,
    trust: words.Trust = None,
    seed: words.Seed = 0,
) -> None:
    """Write one HTML page: the verdict, and everything it rests on."""
    from harness.compare import compare as compare_runs
    from harness.report import origin, write
    from harness.report import report as page
    from harness.saved import read_saved
    from harness.slices import read_slices
    from harness.trec import qrels_agreement, qrels_grades, run_paths, twin_path

    writable(out, qrels)
    paths, judged, grades = run_paths(runs), read_judged(qrels), qrels_grades(qrels)
    opened, told = open_texts(collection), [read_saved(file) for file in trust or ()]
    how: dict[str, Any] = {"grades": grades, "margins": margins(margin or []), "seed": seed}
    sliced = read_slices(slices) if slices else None
    result = compare_runs(paths, judged, measures or ["nDCG@10"], slices=sliced, **how)
    files = [*paths.values(), *(f for f in (Path(qrels), twin_path(qrels)) if f.is_file()), *(trust or ())]
    facts = origin(files, ["stopgap", *sys.argv[1:]], opened)
    shown = page(
        result,
        paths,
        judged,
        collection=opened,
        grades=grades,
        agreement=qrels_agreement(qrels),
        trust=told,
        provenance=facts,
    )
    write(shown, out)
    for candidate, found in result.found.items():
        for name, one in found.items():
            terminal.write(f"{candidate} against {result.base} by {name}: {one.verdict}")
    terminal.write(f"Written: {out}")
