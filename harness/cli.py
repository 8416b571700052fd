"""The command line: one verb, one module. The only place that prints.

Results go to stdout, as a table for a person or with `--json` as one JSON object with the same numbers.
Errors, warnings and progress go to stderr. A verb imports what it needs when it is called, so that
`stopgap --help` stays quick.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import _options as words
from harness._help import Group, Verb
from harness._inputs import expand, margins, open_texts, read_judged, writable
from harness.errors import StopgapError, StopgapWarning, UsageError

if TYPE_CHECKING:
    from harness.labeling import Progress

__all__ = ["app", "main"]

FAILED, BAD_INPUT, INCONCLUSIVE, UNLABELED = 1, 2, 3, 4
"""Exit codes: the gate failed; bad input or usage; inconclusive; finished, but some pairs got no label and
stay holes."""
INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes where Ctrl-C or a closed pipe ended the command: 128 and the signal's number, as in shells."""

SETTINGS = Path("stopgap.toml")
"""Of the gate, unless another file is named."""

app = typer.Typer(
    cls=Group,
    help=words.STORY,
    epilog=words.EPILOG[""],
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich takes longer than all of `--help` may
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        _out(f"stopgap {version('stopgap')}")
        raise typer.Exit


@app.callback()
def _before_the_verb(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that stand before a verb; they act by themselves."""


# -- verbs ---------------------------------------------------------------------------------------------------


@app.command(cls=Verb)
def demo() -> None:
    """Tell the whole story on the embedded collection, in about two minutes on two cores."""
    from harness.demo import demo as story

    with _progress("vectors, labels") as progress:
        for number, step in enumerate(story(progress=progress)):
            _out("\n" * (number > 0) + f"{step.title}\n{'-' * len(step.title)}")
            if step.text:
                _out(step.text)
            if step.columns:
                _out("")
                _table(step.columns, step.rows)
            if step.note:
                _out(f"\n{step.note}")


@app.command(cls=Verb, epilog=words.EPILOG["collections"])
def collections(word: words.Word = "", as_json: words.AsJson = False) -> None:
    """List the collections that can be opened by name."""
    from harness.collection import catalogue

    entries = [entry._asdict() for entry in catalogue(word)]
    columns = ["name", "documents", "topics", "judged", "what"] if word else ["name", "what"]
    _show(as_json, {"collections": entries}, columns, [[e[c] for c in columns] for e in entries])


@app.command(cls=Verb)
def labelers(as_json: words.AsJson = False) -> None:
    """List the labelers, and what each needs installed."""
    from harness.labeling import available

    entries = [labeler._asdict() for labeler in available()]
    ready = {True: "yes", False: "no: pip install 'stopgap[{}]'"}
    rows = [(e["name"], ready[e["installed"]].format(e["needs"]), e["what"]) for e in entries]
    _show(as_json, {"labelers": entries}, ["name", "installed", "what"], rows)


@app.command(cls=Verb, epilog=words.EPILOG["lint"])
def lint(files: words.Files, qrels: words.LintQrels = None, as_json: words.AsJson = False) -> None:
    """Say what is wrong with runs and qrels, as file:line."""
    from harness._render import count, problem
    from harness.lint import lint as problems

    paths = expand(files)
    found = problems(paths, qrels)
    errors = found.filter(level="error").height
    others = found.height - errors
    if as_json:
        _json({"errors": errors, "warnings": others, "problems": found.to_dicts()})
    else:
        for row in found.iter_rows(named=True):
            _out(problem(**row))
        _out(f"{count(len(paths), 'file')}: {count(errors, 'error')}, {count(others, 'warning')}")
    if errors:
        raise typer.Exit(BAD_INPUT)


@app.command(cls=Verb, epilog=words.EPILOG["retrieve"])
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
        with _progress(f"{pipeline}: vectors") as progress:
            run = pipeline_runs.retrieve(opened, pipeline, depth, progress=progress)
        path = pipeline_runs.write(run, out, collection=opened, pipeline=pipeline, depth=depth)
        made.append({"run": str(path), "topics": run["query_id"].n_unique(), "documents": run.height})
    _show(as_json, {"runs": made}, ["run", "topics", "documents"], [list(one.values()) for one in made])


@app.command(cls=Verb, epilog=words.EPILOG["holes"])
def holes(
    runs: words.RunFiles, qrels: words.QrelsFile, depth: words.HolesDepth = 10, as_json: words.AsJson = False
) -> None:
    """Count the holes: pooled documents that nobody judged, for each run and in all."""
    from harness._render import holes_notes
    from harness.pool import summary
    from harness.trec import read_runs

    found = summary(read_runs(runs), read_judged(qrels), depth)
    rows = [(name, run["judged"], run["holes"]) for name, run in found["runs"].items()]
    _show(as_json, found, ["run", f"judged@{depth}", "holes"], rows, holes_notes(found))


@app.command(cls=Verb, epilog=words.EPILOG["fill"])
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
    as_json: words.AsJson = False,
) -> None:
    """Label the holes and write the filled qrels, which say who judged what."""
    from harness._render import fill_story
    from harness.collection import open_collection
    from harness.fill import fill as fill_qrels
    from harness.trec import read_runs, write_qrels

    writable(out, qrels)
    human, opened, ranked = read_judged(qrels), open_collection(collection), read_runs(runs)
    how: dict[str, Any] = {"depth": depth, "mode": mode, "neighbours": neighbours == "on", "ledger": ledger}
    try:
        with _progress("labels") as progress:
            filled = fill_qrels(ranked, human, opened, labeler, **how, progress=progress)
    except KeyboardInterrupt:
        _say(
            "Stopped",
            f"the labeler's answers so far are kept in {ledger}; the same command goes on from there",
        )
        raise typer.Exit(INTERRUPTED) from None
    agreement = filled.summary["calibration"].get("left_out")
    write_qrels(filled.qrels, out, grades=sorted(opened.grades), agreement=agreement)
    if as_json:
        _json({**filled.summary, "out": str(out)})
    else:
        _out(fill_story(filled.summary, str(out)))
    if filled.summary["unlabeled"]:
        raise typer.Exit(UNLABELED)


@app.command(cls=Verb, epilog=words.EPILOG["measure"])
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
        _table(found.per_topic.columns, found.per_topic.iter_rows())
        _out("")
    columns, rows = measure_table(found.runs, found.measures, found.cutoff)
    _show(as_json, whole, columns, rows, measure_notes(found.runs, len(found.topics), columns))


@app.command(cls=Verb, epilog=words.EPILOG["compare"])
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
            _json({"groups": {m: found.to_json() for m, found in groups.items()}})
            return
        for number, found in enumerate(groups.values()):
            _out("\n" * (number > 0) + _compared.groups_title(found))
            _table(*_compared.groups_table(found))
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
        _json(result.to_json())
    else:
        _table(*_compared.table(result))
        _out(f"\n{_compared.notes(result)}")
    if "inconclusive" in result.verdicts:
        raise typer.Exit(INCONCLUSIVE)


@app.command(cls=Verb, epilog=words.EPILOG["plan"])
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
    _show(as_json, made.to_json() | written, columns, rows, _compared.plan_notes(made, written))
    if not made.settled:
        raise typer.Exit(INCONCLUSIVE)


@app.command(cls=Verb, epilog=words.EPILOG["gate"])
def gate(
    settings: words.Settings = SETTINGS,
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
    _show(as_json, found.to_json(), ["check", "verdict", "value", "threshold"], found.rows(), found.words())
    if found.exit_code:
        raise typer.Exit(found.exit_code)


@app.command(cls=Verb, epilog=words.EPILOG["report"])
def report(
    runs: words.Compared,
    qrels: words.QrelsFile,
    out: words.PageFile,
    measures: words.Measures = None,
    collection: words.TextsOf = None,
    margin: words.Margins = None,
    slices: words.Slices = None,
    seed: words.Seed = 0,
) -> None:
    """Write one HTML page: the verdict, and everything it rests on."""
    from harness.compare import compare as compare_runs
    from harness.report import origin, write
    from harness.report import report as page
    from harness.slices import read_slices
    from harness.trec import qrels_agreement, qrels_grades, run_paths, twin_path

    writable(out, qrels)
    paths, judged, grades = run_paths(runs), read_judged(qrels), qrels_grades(qrels)
    opened = open_texts(collection)
    how: dict[str, Any] = {"grades": grades, "margins": margins(margin or []), "seed": seed}
    sliced = read_slices(slices) if slices else None
    result = compare_runs(paths, judged, measures or ["nDCG@10"], slices=sliced, **how)
    files = [*paths.values(), *(f for f in (Path(qrels), twin_path(qrels)) if f.is_file())]
    facts = origin(files, ["stopgap", *sys.argv[1:]], opened)
    shown = page(
        result,
        paths,
        judged,
        collection=opened,
        grades=grades,
        agreement=qrels_agreement(qrels),
        provenance=facts,
    )
    write(shown, out)
    for candidate, found in result.found.items():
        for name, one in found.items():
            _out(f"{candidate} against {result.base} by {name}: {one.verdict}")
    _out(f"Written: {out}")


# -- output --------------------------------------------------------------------------------------------------


def _out(text: str) -> None:
    """Write a result to stdout."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader has read enough; without this Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


def _say(kind: str, message: str) -> None:
    """Write an error or a warning to stderr."""
    print(f"{kind}: {message}", file=sys.stderr, flush=True)


def _json(value: Any) -> None:
    from harness._render import as_json

    _out(as_json(value))


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from harness import _render

    _out(_render.rich_table(columns, rows) if sys.stdout.isatty() else _render.plain_table(columns, rows))


def _show(
    as_json: bool,
    whole: dict[str, Any],
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    notes: str = "",
) -> None:
    """A result as JSON, or as a table with notes below."""
    if as_json:
        _json(whole)
        return
    _table(columns, rows)
    if notes:
        _out(f"\n{notes}")


@contextmanager
def _progress(what: str) -> Iterator[Progress | None]:
    """A bar on stderr, if that is a terminal; yields what is to be called with (done, total)."""
    if not sys.stderr.isatty():
        yield None
        return
    from harness._render import progress_bar

    live: list[Any] = []  # the bar, while there is something to show: results are printed between two bars

    def stop() -> None:
        if live:
            live.pop().stop()

    def show(done: int, total: int | None) -> None:
        if not live:
            live.append(progress_bar())
            live[0].add_task(what)
            live[0].start()
        live[0].update(live[0].task_ids[0], completed=done, total=total)
        if done == total:
            stop()

    try:
        yield show
    finally:
        stop()


# -- errors --------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, on `sys.argv` unless `arguments` are given; returns the exit code.

    Whatever goes wrong becomes a message on stderr and never a traceback, unless STOPGAP_TRACEBACK=1 asks
    for one.
    """
    if arguments is not None:
        return _run(arguments)
    # In a process of its own, what is imported stays to the end: to look through it for garbage, while it is
    # imported and once more at the end, takes a fifth of a small command's time.
    gc.set_threshold(100_000)
    try:
        return _run(sys.argv[1:])
    finally:
        gc.freeze()


def _run(arguments: Sequence[str]) -> int:
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", StopgapWarning)
        warnings.showwarning = _show_warning
        try:
            app(list(arguments), prog_name="stopgap")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        except StopgapError as error:
            _say("Error", str(error))
        except Exception as error:
            if os.environ.get("STOPGAP_TRACEBACK"):
                raise
            _say("Error", _unforeseen(error))
    return BAD_INPUT


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _say("Warning", str(message))


def _unforeseen(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "out of memory"
    told = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"{told}\nstopgap did not foresee this: please report it. STOPGAP_TRACEBACK=1 shows where it was."
