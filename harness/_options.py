"""The words of the command line: arguments, options and examples of the verbs, as `--help` shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "EPILOG",
    "STORY",
    "Accept",
    "All",
    "AllTopics",
    "Answers",
    "AsJson",
    "CollectionName",
    "CollectionOption",
    "Compared",
    "Correction",
    "Count",
    "Files",
    "FilledFile",
    "HolesDepth",
    "HumanFile",
    "Junit",
    "LabelFiles",
    "LabelerNames",
    "LedgerFolder",
    "LintQrels",
    "ListFile",
    "Margins",
    "Markdown",
    "Measures",
    "Merged",
    "Mode",
    "Neighbours",
    "OneMeasure",
    "OrderedRuns",
    "PageFile",
    "PerTopic",
    "Pipelines",
    "PoolDepth",
    "QrelsFile",
    "RunDepth",
    "RunFiles",
    "RunFolder",
    "SecondFile",
    "Seed",
    "Settings",
    "Slices",
    "TextsOf",
    "Trust",
    "TwoRuns",
    "Word",
]

STORY = "Fill the holes of a test collection, and say what rests on the filling."

EPILOG = {
    "": """\
On your own files:
  stopgap holes runs/*.run.gz --qrels qrels.txt --depth 10
  stopgap fill runs/*.run.gz --qrels qrels.txt --collection DIR --labeler minilm --out filled.qrels
  stopgap compare base.run.gz candidate.run.gz --qrels filled.qrels -m nDCG@10 -m AP

Exit codes:
  0  done, or passed
  1  the gate failed
  2  bad input or usage
  3  inconclusive
  4  finished, but some pairs got no label and stay holes""",
    "collections": """\
Examples:
  stopgap collections
  stopgap collections msmarco-passage/trec""",
    "lint": """\
Examples:
  stopgap lint runs/*.run.gz --qrels qrels.txt
  stopgap lint qrels.txt

Exit codes:
  0  no errors, perhaps warnings
  2  errors""",
    "retrieve": """\
Examples:
  stopgap retrieve demo bm25 hybrid --out runs
  stopgap retrieve path/to/collection mypipelines:reranked --depth 100 --out runs""",
    "holes": """\
judged@K is judged / min(K, retrieved), averaged over the topics of the qrels.

Example:
  stopgap holes runs/*.run.gz --qrels qrels.txt --depth 10""",
    "fill": """\
A judgment is never changed. Labels are calibrated before they fill. Column 2 of the written file
says who graded: 0 a human, 1 a labeler; F.parquet beside it keeps expected gains and distributions.
After a stop the same command goes on: what the labeler has answered is not asked again.

Example:
  stopgap fill runs/*.run.gz --qrels qrels.txt --collection DIR --labeler minilm --out filled.qrels

Exit codes:
  0  every hole has a label
  2  bad input or usage; nothing was written
  4  written, but some pairs got no label and stay holes""",
    "measure": """\
Measures are written as in ir-measures: nDCG@10, nDCG(dcg='exp-log2')@10, AP, AP(rel=2), RR@10, P@5,
R@1000, Success@1, RBP(p=0.8), Judged@10, Bpref, Rprec, and whatever else its providers compute.
A topic that a run lacks counts 0. labeled_share is the share of the top k that carries a labeler's grade;
by_labels, behind a score, is the share of that score that labeled documents bring.

Example:
  stopgap measure runs/*.run.gz --qrels filled.qrels -m nDCG@10 -m AP""",
    "compare": """\
One word for each measure: better or worse (the 95 % interval leaves out 0 and the corrected p is below
0.05), equivalent (the interval lies within --margin, or nothing differs), inconclusive. The interval is
over topics drawn anew and, with filled qrels, over what the labels may get wrong. bounds: what any grades
for the unjudged documents could make of the difference.

Examples:
  stopgap compare base.run candidate.run --qrels filled.qrels -m nDCG@10 -m AP
  stopgap compare base.run a.run b.run --qrels filled.qrels --margin 0.01 --slices topics.tsv
  stopgap compare runs/*.run.gz --qrels qrels.txt --all

Exit codes:
  0  every verdict is better, worse or equivalent
  2  bad input or usage
  3  a verdict is inconclusive""",
    "plan": """\
Lists the unjudged documents whose grades would tell most about the difference, best first: what both runs
rank alike tells nothing. Judge the list, give it back as --answers, and go on until it says that the verdict
is settled: what assessors may yet say would not change it in 95 of 100 draws. influence: what one grade more
makes of the difference; uncertainty: how far the document's grade is from known, as a standard deviation.

Examples:
  stopgap plan base.run candidate.run --qrels filled.qrels --collection DIR --out list.csv
  stopgap plan base.run candidate.run --qrels filled.qrels --answers list.csv --merged judged.qrels

Exit codes:
  0  the verdict is settled
  2  bad input or usage
  3  it is not; the list says what to judge""",
    "agree": """\
Over the pairs that both graded; intervals draw topics anew. Labels are .parquet with distributions, or any
qrels: of filled ones the labels count. A pair without a label is counted and never scored. With runs also:
whether the labels order them as the judgments do, on the same pairs.

Examples:
  stopgap agree --human qrels.txt --labels labels.txt
  stopgap agree --human qrels.txt --labels a.txt --labels b.txt --second assessor2.txt
  stopgap agree runs/*.run.gz --human qrels.txt --labels labels.txt -m nDCG@10""",
    "gate": """\
FILE is TOML, by default stopgap.toml:
  runs = ["candidate.run"]
  baseline = "base.run"
  qrels = "filled.qrels"
  measures = ["nDCG@10"]
  [checks]
  margin = 0.01
  judged = 0.95
  labeled_share = 0.3

The first time, and after a change that is meant: stopgap gate --accept. What is accepted stands in
stopgap.lock.json beside FILE; other qrels, another baseline or other topics than those fail.

Exit codes:
  0  every check passed
  1  a check failed
  2  bad input or usage
  3  no check failed, but one is inconclusive""",
    "report": """\
The page is one file that loads nothing: attach it to a pull request. It shows the verdict, the intervals,
each topic, what the scores rest on, and both rankings of the topics that moved most.

Example:
  stopgap report base.run candidate.run --qrels filled.qrels -m nDCG@10 --collection DIR --out report.html""",
}
"""What stands below the options, by verb."""

# Of several verbs.
RunFiles = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Runs: TREC text (plain, .gz, .zst) or .parquet.")
]
QrelsFile = Annotated[
    str,
    typer.Option(
        "--qrels", metavar="Q", help="Qrels: TREC text or .parquet; 'demo' for the embedded collection's."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]

# collections
Word = Annotated[str, typer.Argument(metavar="[WORD]", help="Show the ir_datasets ids that contain it.")]

# lint
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Runs and qrels, in any order.")]
LintQrels = Annotated[
    str | None, typer.Option("--qrels", metavar="Q", help="Compare the topics of the runs with this file's.")
]

# retrieve
CollectionName = Annotated[
    str, typer.Argument(metavar="COLLECTION", help="A folder, 'demo', or irds:ID (see stopgap collections).")
]
Pipelines = Annotated[
    list[str],
    typer.Argument(
        metavar="PIPELINE...",
        help="bm25, qld, dense, hybrid, bm25+rerank, or module:object for a PyTerrier transformer.",
    ),
]
RunFolder = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for NAME.run.gz and its metadata twin.")
]
RunDepth = Annotated[int, typer.Option("--depth", metavar="N", min=1, help="Documents kept for each topic.")]

# holes
HolesDepth = Annotated[int, typer.Option("--depth", metavar="K", min=1, help="Ranks of each run that count.")]

# fill
CollectionOption = Annotated[
    str, typer.Option("--collection", metavar="C", help="Where the texts are: a folder, 'demo', or irds:ID.")
]
LabelerNames = Annotated[
    list[str],
    typer.Option(
        "--labeler", metavar="L", help="minilm, lookup:FILE, ... (see stopgap labelers); repeat to stack."
    ),
]
FilledFile = Annotated[
    Path, typer.Option("--out", metavar="F", help="Filled qrels to write: TREC text or .parquet.")
]
PoolDepth = Annotated[
    int, typer.Option("--depth", metavar="K", min=1, help="Ranks of each run that are pooled.")
]
Mode = Annotated[
    Literal["holes", "pool"],
    typer.Option(
        "--mode",
        metavar="holes|pool",
        help="Label the holes; or the whole pool, and leave the judgments out of the file.",
    ),
]
Neighbours = Annotated[
    Literal["on", "off"],
    typer.Option("--neighbours", metavar="on|off", help="Use the topic's judgments of similar documents."),
]
LedgerFolder = Annotated[
    str, typer.Option("--ledger", metavar="DIR", help="Where the labeler's answers are kept.")
]

# measure
Measures = Annotated[
    list[str] | None, typer.Option("-m", metavar="M", help="A measure; repeat for more. [default: nDCG@10]")
]
PerTopic = Annotated[bool, typer.Option("--per-topic", help="Also show the value of every topic.")]

# report
Trust = Annotated[
    list[Path] | None,
    typer.Option(
        "--trust", metavar="F", help="What agree, simulate or diagnose printed with --json; repeat for more."
    ),
]

# agree
OrderedRuns = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN...]", help="Runs to order by the labels and by the judgments."),
]
HumanFile = Annotated[
    str, typer.Option("--human", metavar="Q", help="Qrels with the judgments; 'demo' for the embedded ones.")
]
LabelFiles = Annotated[
    list[str],
    typer.Option("--labels", metavar="F", help="A labeler's grades, as qrels; repeat to compare labelers."),
]
SecondFile = Annotated[
    str | None,
    typer.Option("--second", metavar="Q", help="Qrels of a second assessor: how far two people agree."),
]

# plan
TwoRuns = Annotated[
    list[str],
    typer.Argument(metavar="BASE CANDIDATE", help="Two runs: TREC text (also .gz, .zst) or .parquet."),
]
OneMeasure = Annotated[str, typer.Option("-m", metavar="M", help="The measure whose verdict is to settle.")]
Count = Annotated[int, typer.Option("--count", metavar="N", min=1, help="Documents to ask for at most.")]
ListFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="LIST", help="List to write, .csv or .jsonl; with texts if --collection."),
]
Answers = Annotated[
    Path | None,
    typer.Option(
        "--answers", metavar="A", help="First add these: a list with `relevance` filled in, or qrels."
    ),
]
Merged = Annotated[
    Path | None, typer.Option("--merged", metavar="F", help="Write the qrels with the answers in them.")
]
AllTopics = Annotated[
    bool, typer.Option("--all-topics", help="Count the runs' topics that nobody has judged yet, too.")
]

# gate
Settings = Annotated[
    Path, typer.Argument(metavar="[FILE]", help="Settings; their paths are relative to its folder.")
]
Accept = Annotated[
    bool,
    typer.Option(
        "--accept", help="First take the baseline, qrels and timings as they are now for the accepted ones."
    ),
]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="F", help="Write the checks as JUnit XML.")]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", metavar="F", help="Write them as Markdown, for a job's summary.")
]

# report
PageFile = Annotated[Path, typer.Option("--out", metavar="F", help="HTML page to write.")]
TextsOf = Annotated[
    str | None,
    typer.Option(
        "--collection", metavar="C", help="Where queries and texts are: a folder, 'demo', or irds:ID."
    ),
]

# compare
Compared = Annotated[
    list[str],
    typer.Argument(metavar="BASE CANDIDATE...", help="Runs: TREC text (plain, .gz, .zst) or .parquet."),
]
Margins = Annotated[
    list[str] | None,
    typer.Option(
        "--margin", metavar="X|M=X", help="Differences up to X do not matter; for one measure: nDCG@10=0.01."
    ),
]
Correction = Annotated[
    Literal["holm", "bonferroni", "fdr", "none"],
    typer.Option(
        "--correction",
        metavar="NAME",
        help="Of p over measures, candidates and slices: holm, bonferroni, fdr, none.",
    ),
]
Slices = Annotated[
    Path | None,
    typer.Option("--slices", metavar="F", help="Tab-separated: query_id and columns to slice the topics by."),
]
All = Annotated[bool, typer.Option("--all", help="Compare every run with every other, in groups.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of everything random.")]
