"""The arguments and options of the verbs, in the words of `--help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Accept",
    "Address",
    "All",
    "AllTopics",
    "AllowCircular",
    "Answers",
    "AsJson",
    "Budgets",
    "By",
    "CollectionName",
    "CollectionOption",
    "Compared",
    "Correction",
    "Count",
    "DistillSettings",
    "Engine",
    "Files",
    "FilledFile",
    "GroupsFile",
    "HolesDepth",
    "HumanFile",
    "JudgedTopics",
    "Junit",
    "LabelFiles",
    "LabelerNames",
    "LabelsFile",
    "LeaveOut",
    "LedgerFolder",
    "LintQrels",
    "ListFile",
    "Margins",
    "Markdown",
    "Measures",
    "Merged",
    "Mode",
    "Neighbours",
    "OneLabeler",
    "OneMeasure",
    "OneOrTwoRuns",
    "OrderedRuns",
    "PageFile",
    "PerTopic",
    "Pipelines",
    "PoolDepth",
    "QrelsFile",
    "Rates",
    "RunDepth",
    "RunFiles",
    "RunFolder",
    "Sample",
    "Scale",
    "SecondFile",
    "Seed",
    "Seeds",
    "Settings",
    "SimulatedLabelers",
    "SimulatedLabels",
    "Slices",
    "SomeHuman",
    "SomeLabels",
    "SomeRuns",
    "Stages",
    "TextsOf",
    "Trust",
    "TwoRuns",
    "Word",
    "WorkerGpus",
    "Workers",
]

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
        "--labeler",
        metavar="L",
        help="minilm, hf:FOLDER, openai:MODEL@URL, ... (see stopgap labelers); repeat to stack.",
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
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", metavar="local|ray", help="Where labelers run: here, or on a Ray cluster."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", min=1, help="With ray: processes. [default: one a processor, or GPU]"
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="A", help="With ray: the cluster. [default: RAY_ADDRESS, or this machine]"
    ),
]
WorkerGpus = Annotated[
    float, typer.Option("--worker-gpus", metavar="G", min=0, help="With ray: GPUs for each worker.")
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

# diagnose
SomeRuns = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN...]", help="Runs, two or more: do the labels favour some of them?"),
]
SomeHuman = Annotated[
    str | None,
    typer.Option("--human", metavar="Q", help="Judgments: qrels; 'demo' for the embedded collection's."),
]
SomeLabels = Annotated[
    list[str] | None,
    typer.Option("--labels", metavar="F", help="Labels: TREC text or .parquet; repeat for more."),
]
OneLabeler = Annotated[
    str | None,
    typer.Option("--labeler", metavar="L", help="Try whether it can be fooled; needs --collection."),
]
AllowCircular = Annotated[
    list[str] | None,
    typer.Option("--allow-circular", metavar="RUN", help="A run that may be its labeler's relative; repeat."),
]
Scale = Annotated[
    str | None,
    typer.Option(
        "--grades", metavar="G,G", help="The scale, as 0,1,2,3. [default: 0 to the highest judgment]"
    ),
]
Sample = Annotated[
    int, typer.Option("--sample", metavar="N", min=2, help="Documents to try to fool it with.")
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

# estimate
OneOrTwoRuns = Annotated[
    list[str],
    typer.Argument(metavar="RUN [CANDIDATE]", help="Runs: TREC text (plain, .gz, .zst) or .parquet."),
]
LabelsFile = Annotated[
    str,
    typer.Option("--labels", metavar="F", help="A labeler's grades, as qrels: for judged topics and others."),
]
JudgedTopics = Annotated[
    Path | None,
    typer.Option(
        "--judged-topics",
        metavar="T",
        help="Query ids, one a line, whose judgments count; by default all that have some.",
    ),
]

# simulate
LeaveOut = Annotated[
    Literal["group", "run", "random"],
    typer.Option("--leave-out", metavar="group|run|random", help="Whose judgments become holes."),
]
SimulatedLabels = Annotated[
    str | None,
    typer.Option("--labels", metavar="F", help="A labeler's grades of the judged pairs, as qrels."),
]
SimulatedLabelers = Annotated[
    list[str] | None,
    typer.Option("--labeler", metavar="L", help="A labeler for the conditioned fill; repeat to stack."),
]
GroupsFile = Annotated[
    str | None,
    typer.Option("--groups", metavar="META", help="Tab-separated, with columns `run` and `team`."),
]
By = Annotated[str, typer.Option("--by", metavar="COLUMN", help="Column of META that names the groups.")]
Budgets = Annotated[
    list[int] | None,
    typer.Option(
        "--budget", metavar="N", min=1, help="Also with fits that see N judged documents a topic; repeat."
    ),
]
Rates = Annotated[
    list[float] | None,
    typer.Option("--rate", metavar="X", help="Share of random holes; repeat for more. [default: 0.5]"),
]
Seeds = Annotated[
    int, typer.Option("--seeds", metavar="N", min=1, help="How many times random holes are drawn.")
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

# distill
DistillSettings = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG.toml",
        help="What is distilled, out of what, by whom; docs/distill.md has the keys. `demo`: the embedded "
        "collection, all else by default.",
    ),
]
Stages = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STAGE...]",
        help="synthesize, negatives, teach, train, accept or export; by default all, in this order.",
    ),
]
