"""What stands below the options in `--help`: what a verb's words mean, examples, exit codes."""

from __future__ import annotations

__all__ = ["EPILOG", "STORY"]

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
    "estimate": """\
Few topics with judgments and many with labels: tuned prediction-powered inference (PPI++) over topics. The
judged topics have to be a random part of the labeled ones, and the labels made for both in the same way,
without a look at their judgments. lambda: how far labels count, 0 (not at all) to 1.

Examples:
  stopgap estimate base.run --human few.qrels --labels labels.qrels -m nDCG@10
  stopgap estimate base.run candidate.run --human few.qrels --labels labels.qrels -m nDCG@10 -m AP""",
    "simulate": """\
For qrels that are judged well: makes holes as a new system would have them, fills them in several ways, and
compares what verdicts, ranks and scores become with what they are under the full qrels. group: what only one
group's runs have in their top K; run: what only one run has; random: a share of all judgments.

Fills: zero; condensed (unjudged documents dropped); constant (the mean judgment); labels (as they are);
calibrated (what judgments say of each label); conditioned (the labeler, and what is judged on the topic);
relabel (labels instead of all judgments).

Examples:
  stopgap simulate runs/*.run.gz --qrels qrels.txt --labels llm.qrels --leave-out run
  stopgap simulate runs/*.run.gz --qrels qrels.txt --labeler minilm --collection DIR \\
    --leave-out group --groups runs_meta.tsv --budget 10
  stopgap simulate runs/*.run.gz --qrels qrels.txt --labels llm.qrels --leave-out random --rate 0.5""",
    "diagnose": """\
Compares labels with judgments, or, without --human, with the first labels: who alone says relevant and
whether the text tells which; whether the error goes with length or with the query's words; which topics,
and with runs which systems, are graded too high; whether labels are off the scale, shifted, turned round,
constant or twice there. With --labeler it is tried whether the labeler can be fooled.

Labels whose labeler shares a base model, a teacher or training data with a run (NAME.meta.yaml beside a run
or labels is its card) are refused, unless --allow-circular names the run.

Examples:
  stopgap diagnose runs/*.run.gz --human qrels.txt --labels labels.qrels --collection DIR
  stopgap diagnose --human qrels.txt --collection DIR --labeler minilm
  stopgap diagnose --labels one.qrels --labels other.qrels

Exit codes:
  0  done, whatever was found
  2  bad input or usage; labels off the scale or twice there; labels of a run's relative""",
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
stopgap.lock.json beside FILE; other qrels, another baseline or other topics than those fail. Labels of a
labeler that shares a model with a run fail, unless allow_circular = ["candidate"] names it. The tables
[checks.agreement], [checks.simulation], [checks.diagnosis] and [checks.throughput] hold labels and speed to
what you ask; docs/gate.md has all keys.

Exit codes:
  0  every check passed
  1  a check failed
  2  bad input or usage
  3  no check failed, but one is inconclusive""",
    "report": """\
The page is one file that loads nothing: attach it to a pull request. It shows the verdict, the intervals,
each topic, what the scores rest on, and both rankings of the topics that moved most.

Examples:
  stopgap report base.run candidate.run --qrels filled.qrels -m nDCG@10 --collection DIR --out report.html
  stopgap report base.run candidate.run --qrels filled.qrels --trust agree.json --out report.html""",
    "distill": """\
Each stage writes a file that a person can read into the folder `out`, and is run again only when what it was
made of has changed. Queries, pairs or grades that were edited by hand are used as they stand. What teachers
have answered is kept in the ledger and never asked again. A student is exported only if it passes its test
against human judgments on topics that it has not seen.

Examples:
  stopgap distill demo
  stopgap distill distill.toml
  stopgap distill distill.toml synthesize
  stopgap fill base.run --qrels qrels.txt --labeler distilled/labeler --out filled.qrels

Exit codes:
  0  done
  1  done, but the student is not accepted, and why is said; nothing was exported
  2  bad input or usage; the stage at which it stopped has changed no file
  4  done, but some pairs got no label from their teacher and are left out""",
}
"""What stands below the options, by verb."""
