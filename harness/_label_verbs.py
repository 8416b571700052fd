"""The verbs that make runs and labels and measure with them, as functions; `harness.cli` gives them names.

A verb imports what it needs when it is called, so that `stopgap --help` stays quick.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import typer

from harness import _options as words
from harness import _terminal as terminal
from harness._inputs import expand, read_judged, writable
from harness.errors import UsageError

__all__ = ["collections", "demo", "fill", "holes", "labelers", "lint", "measure", "retrieve"]


def demo() -> None:
    """Tell the whole story on the embedded collection, in about two minutes on two cores."""
    from harness.demo import demo as story

    with terminal.progress("vectors, labels") as progress:
        for number, step in enumerate(story(progress=progress)):
            terminal.write("\n" * (number > 0) + f"{step.title}\n{'-' * len(step.title)}")
            if step.text:
                terminal.write(step.text)
            if step.columns:
                terminal.write("")
                terminal.table(step.columns, step.rows)
            if step.note:
                terminal.write(f"\n{step.note}")


def collections(word: words.Word = "", as_json: words.AsJson = False) -> None:
    """List the collections that can be opened by name."""
    from harness.collection import catalogue

    entries = [entry._asdict() for entry in catalogue(word)]
    columns = ["name", "documents", "topics", "judged", "what"] if word else ["name", "what"]
    terminal.show(as_json, {"collections": entries}, columns, [[e[c] for c in columns] for e in entries])


def labelers(as_json: words.AsJson = False) -> None:
    """List the labelers, and what each needs installed."""
    from harness.labeling import available

    entries = [labeler._asdict() for labeler in available()]
    ready = {True: "yes", False: "no: pip install 'stopgap[{}]'"}
    rows = [(e["name"], ready[e["installed"]].format(e["needs"]), e["what"]) for e in entries]
    terminal.show(as_json, {"labelers": entries}, ["name", "installed", "what"], rows)


def lint(files: words.Files, qrels: words.LintQrels = None, as_json: words.AsJson = False) -> None:
    """Say what is wrong with runs and qrels, as file:line."""
    from harness._render import count, problem
    from harness.lint import lint as problems

    paths = expand(files)
    found = problems(paths, qrels)
    errors = found.filter(level="error").height
    others = found.height - errors
    if as_json:
        terminal.json({"errors": errors, "warnings": others, "problems": found.to_dicts()})
    else:
        for row in found.iter_rows(named=True):
            terminal.write(problem(**row))
        terminal.write(f"{count(len(paths), 'file')}: {count(errors, 'error')}, {count(others, 'warning')}")
    if errors:
        raise typer.Exit(terminal.BAD_INPUT)


def retrieve(
    collection: words.CollectionName,
    pipelines: words.Pipelines,
    out: words.RunFolder,
    depth: words.RunDepth = 1000,
    as_json: words.AsJson = False,
) -> None:
    """Make runs with PyTerrier pipelines; the built-in ones need no Java."""
    from harness import retrieve as pipeline_runs
    from harness.collection import open_collection

    opened = open_collection(collection)
    made = []
    for pipeline in pipelines:
        with terminal.progress(f"{pipeline}: vectors") as progress:
            run = pipeline_runs.retrieve(opened, pipeline, depth, progress=progress)
        path = pipeline_runs.write(run, out, collection=opened, pipeline=pipeline, depth=depth)
        made.append({"run": str(path), "topics": run["query_id"].n_unique(), "documents": run.height})
    terminal.show(
        as_json, {"runs": made}, ["run", "topics", "documents"], [list(one.values()) for one in made]
    )


def holes(
    runs: words.RunFiles, qrels: words.QrelsFile, depth: words.HolesDepth = 10, as_json: words.AsJson = False
) -> None:
    """Count the holes: pooled documents that nobody judged, for each run and in all."""
    from harness._render import holes_notes
    from harness.pool import summary
    from harness.trec import read_runs

    found = summary(read_runs(runs), read_judged(qrels), depth)
    rows = [(name, run["judged"], run["holes"]) for name, run in found["runs"].items()]
    terminal.show(as_json, found, ["run", f"judged@{depth}", "holes"], rows, holes_notes(found))


def fill(
    runs: words.RunFiles,
    qrels: words.QrelsFile,
    collection: words.CollectionOption,
    labeler: words.LabelerNames,
    out: words.FilledFile,
    depth: words.PoolDepth = 10,
    mode: words.Mode = "holes",
    neighbours: words.Neighbours = "on",
    ledger: words.LedgerFolder = ".stopgap/ledger",
    engine: words.Engine = "local",
    workers: words.Workers = None,
    address: words.Address = None,
    worker_gpus: words.WorkerGpus = 0.0,
    as_json: words.AsJson = False,
) -> None:
    """Label the holes and write the filled qrels, which say who judged what."""
    from harness._render import fill_story
    from harness.accounting import keep
    from harness.collection import open_collection
    from harness.fill import fill as fill_qrels
    from harness.trec import read_runs, write_qrels

    writable(out, qrels)
    human, opened, ranked = read_judged(qrels), open_collection(collection), read_runs(runs)
    how: dict[str, Any] = {"depth": depth, "mode": mode, "neighbours": neighbours == "on", "ledger": ledger}
    try:
        with _engine(engine, workers, address, worker_gpus) as far, terminal.progress("labels") as progress:
            filled = fill_qrels(ranked, human, opened, labeler, **how, progress=progress, engine=far)
    except KeyboardInterrupt:
        terminal.say(
            "Stopped",
            f"the labeler's answers so far are kept in {ledger}; the same command goes on from there",
        )
        raise typer.Exit(terminal.INTERRUPTED) from None
    agreement = filled.summary["calibration"].get("left_out")
    write_qrels(filled.qrels, out, grades=sorted(opened.grades), agreement=agreement)
    keep(filled.accounts, out)
    if as_json:
        terminal.json({**filled.summary, "accounts": filled.accounts, "out": str(out)})
    else:
        terminal.write(fill_story(filled.summary, filled.accounts, str(out)))
    if filled.summary["unlabeled"]:
        raise typer.Exit(terminal.UNLABELED)


def _engine(name: str, workers: int | None, address: str | None, gpus: float) -> Any:
    """What labelers are asked with, as a context; None: in this process."""
    if name == "ray":
        from harness.ray_engine import RayEngine

        return RayEngine(workers, address, gpus)
    if workers is not None or address is not None or gpus:
        raise UsageError("--workers, --address and --worker-gpus go with --engine ray")
    return nullcontext()


def measure(
    runs: words.RunFiles,
    qrels: words.QrelsFile,
    measures: words.Measures = None,
    per_topic: words.PerTopic = False,
    as_json: words.AsJson = False,
) -> None:
    """Score runs, with judged@k and the labelers' share beside every score."""
    from harness._render import measure_notes, measure_table
    from harness.measure import measure as score
    from harness.trec import qrels_grades, run_paths

    found = score(run_paths(runs), read_judged(qrels), measures or ["nDCG@10"], grades=qrels_grades(qrels))
    whole: dict[str, Any] = {"runs": found.runs}
    if per_topic:
        whole["per_topic"] = found.per_topic.to_dicts()
    if per_topic and not as_json:
        terminal.table(found.per_topic.columns, found.per_topic.iter_rows())
        terminal.write("")
    columns, rows = measure_table(found.runs, found.measures, found.cutoff)
    terminal.show(as_json, whole, columns, rows, measure_notes(found.runs, len(found.topics), columns))
