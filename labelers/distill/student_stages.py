"""The stages from the taught pairs to a labeler: `train`, `accept` and `export`.

    train.json        what the student in `student/` was made of, and how good it is on its dev topics
    acceptance.json   the test against human judgments; acceptance.md is the same for a person
    export.json       where the labeler is, and how fast

All three are reports, not files to edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from harness.errors import LabelerError, StopgapError, UsageError
from harness.frames import QRELS
from harness.registry import card
from harness.trec_bytes import file_hash, replace_file
from labelers.causal_files import find_model
from labelers.distill.accept import accept
from labelers.distill.acceptance_words import table
from labelers.distill.config import HUMAN
from labelers.distill.cross_student import base_folder
from labelers.distill.encoder_student import train_encoder
from labelers.distill.export import Trained, export
from labelers.distill.leaks import Pair
from labelers.distill.rows import Row, digest_of
from labelers.distill.samples import Sample
from labelers.distill.sections import NONE
from labelers.distill.stages import NOT_ACCEPTED, Made, Stage
from labelers.distill.students import place
from labelers.distill.teach import TAUGHT, training_pairs
from labelers.distill.train import STUDENT, student_digest, train
from labelers.distill.train_data import as_taught
from labelers.distill.train_settings import EMBEDDED, ENCODER, Train
from labelers.distill.work import Work
from labelers.labeler_file import NAME, check_files, read_labeler
from labelers.prompting import read_prompt

__all__ = ["ACCEPTED", "EXPORTED", "TABLE", "TRAINED"]

TABLE = "acceptance.md"
_ENOUGH = 10  # topics kept from training from which on they alone calibrate the student


# -- train ---------------------------------------------------------------------------------------------------


def _settings(work: Work) -> Train:
    """`[train]`, with a folder as seen from the working folder."""
    given = work.config.train
    folder = work.settings.at(given.model)
    return given.model_copy(update={"model": str(folder)}) if folder.is_dir() else given


def _train_made_of(work: Work) -> dict[str, Any]:
    settings = _settings(work)
    if settings.student == ENCODER:
        model = work.labeler(
            EMBEDDED if settings.model == EMBEDDED else f"minilm:{settings.model}"
        ).fingerprint
    else:
        model = find_model(str(base_folder(settings.model))).digest()
    return {
        "settings": settings.model_dump(mode="json", exclude={"checkpoint", "model"}),
        "model": model,
        **({} if settings.warmup is None else {"warmup": work.labeler(settings.warmup.labeler).fingerprint}),
        "grades": [[grade, work.grades[grade]] for grade in work.scale],
        "corpus": work.collection.corpus_hash,
        "test": work.made_of_human()["test topics"],
        "seed": work.seed,
    }


def _train_check(work: Work) -> None:
    _train_made_of(work)  # finds the model, and who warms it up
    if work.config.train.student != ENCODER:
        place(work.config.train.device)


def _train(work: Work, given: Mapping[str, list[Row]]) -> Made:
    settings = _settings(work)
    taught = as_taught(training_pairs(work, given[TAUGHT.name]), work.scale)
    how: dict[str, Any] = {"grades": work.grades, "seed": work.seed, "progress": work.progress}
    if settings.student == ENCODER:
        found = train_encoder(settings, taught, work.out, ledger=work.ledger, **how)
    else:
        found = train(settings, taught, work.out, **how)
    summary = {key: found[key] for key in ("student", "pairs", "topics", "start", "dev")}
    if "penalty" in found:
        summary["correction"] = "none: the cosine as it is" if found["penalty"] is None else "of all features"
    return Made([found], summary)


def _train_whole(work: Work, told: Row) -> bool:
    return (work.out / STUDENT).is_dir() and student_digest(work.out) == told["sha256"]


TRAINED = Stage(
    name="train",
    file="train.json",
    fields={"labeler": (str,), "dev_topics": (list,), "sha256": (str,)},
    key=(),
    version=1,
    needs=(TAUGHT.name,),
    made_of=_train_made_of,
    run=_train,
    check=_train_check,
    report=True,
    whole=_train_whole,
)


# -- accept --------------------------------------------------------------------------------------------------


def _teacher(work: Work) -> str:
    """The teacher's name: by default the first labeler that taught, or `human`."""
    labelers = [name for name in work.config.teach.teachers if name != HUMAN]
    return work.config.accept.teacher or next(iter(labelers), HUMAN)


def _teacher_made_of(work: Work) -> list[str]:
    """Its name and fingerprint; the name alone where it cannot be made, which the test will say."""
    named = _teacher(work)
    if named in (HUMAN, NONE):
        return [named]
    try:
        return [named, work.labeler(named).fingerprint]
    except StopgapError:
        return [named]


def _accept_made_of(work: Work) -> dict[str, Any]:
    section = work.config.accept
    return {
        "settings": section.model_dump(),
        "teacher": _teacher_made_of(work),
        "base": work.labeler(section.base).fingerprint,
        "human": work.made_of_human(),
        "test": digest_of(work.test_judgments.select("query_id", "doc_id", "relevance").rows()),
        "corpora": [work.collection.corpus_hash, work.test_collection.corpus_hash],
        "grades": work.scale,
        "seed": work.seed,
    }


def _accept_check(work: Work) -> None:
    if work.test_judgments["relevance"].n_unique() < 2:
        raise work.settings.problem(
            "human",
            "accept needs human judgments of two grades on test topics, and there are none",
            "Next: judge some (human.qrels), name test topics (human.test, human.test_share), or run the "
            "stages up to train only",
        )
    if work.config.accept.fit == "train" and work.judgments(work.split.train).is_empty():
        raise work.settings.problem(
            "fit",
            'accept.fit is "train", and no training topic has judgments to calibrate by',
            'Next: fit = "folds" under [accept], which calibrates each test topic by the others',
        )


def _test(work: Work) -> Sample:
    pairs = work.test_collection.pairs(work.test_judgments.select("query_id", "doc_id"))
    return Sample.of(work.test_collection.name, pairs, _qrels(work.test_judgments), work.scale)


def _calibrating(work: Work, told: Row) -> tuple[Sample | None, str]:
    """The judgments that calibrate: of topics that the training kept back, or else of all; and a note."""
    everyone = work.judgments(work.split.train)
    kept = everyone.filter(pl.col("query_id").is_in(told["dev_topics"]))
    topics = kept["query_id"].n_unique()
    note = ""
    if topics < _ENOUGH or kept["relevance"].n_unique() < 2:
        note = (
            f"training kept back {topics} topics with human judgments, too few to calibrate by, so all "
            "training topics calibrated, most of which the student has learnt from"
        )
        kept = everyone
    if kept.is_empty():
        return None, note
    pairs = work.collection.pairs(kept.select("query_id", "doc_id"))
    return Sample.of(work.collection.name, pairs, _qrels(kept), work.scale), note


def _qrels(judgments: pl.DataFrame) -> pl.DataFrame:
    return judgments.select(list(QRELS))


def _accept(work: Work, given: Mapping[str, list[Row]]) -> Made:
    told, test = given[TRAINED.name][0], _test(work)
    sample, note = _calibrating(work, told)
    rows = training_pairs(work, given[TAUGHT.name]).select("query_id", "query", "text").iter_rows()
    found = accept(
        work.config.accept,
        _trained(work, told).spec,
        sample or test,  # without a sample, `fit` is `folds`, and calibrates by the test topics
        test,
        work.grades,
        teacher=_teacher(work),
        learnt=[Pair(*row) for row in rows],
        same_ids=work.test_collection is work.collection,
        ledger=work.ledger,
        seed=work.seed,
        progress=work.progress,
    )
    if note and work.config.accept.fit == "train":
        found["notes"].append(note)
    with replace_file(work.out / TABLE) as file:
        file.write(table(found).encode() + b"\n")
    what = found["criterion"] if found["criterion"] != "auc" else None
    values = {name: one["values"] for name, one in found["contenders"].items()}
    summary = {
        "accepted": "yes" if found["accepted"] else "no",
        "why": found["why"],
        "notes": found["notes"],
        **({what: {name: _short(one.get(what)) for name, one in values.items()}} if what else {}),
        "table": str(work.out / TABLE),
    }
    return Made([found], summary, 0 if found["accepted"] else NOT_ACCEPTED)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


ACCEPTED = Stage(
    name="accept",
    file="acceptance.json",
    fields={"accepted": (bool,), "why": (list,), "fingerprint": (str,), "calibration": (dict,)},
    key=(),
    version=1,
    needs=(TRAINED.name, TAUGHT.name),
    made_of=_accept_made_of,
    run=_accept,
    check=_accept_check,
    report=True,
    whole=lambda work, _: (work.out / TABLE).is_file(),
)


# -- export --------------------------------------------------------------------------------------------------


def _trained(work: Work, told: Row) -> Trained:
    """The student, with what it was made of."""
    settings = _settings(work)
    base = card(EMBEDDED) if settings.model == EMBEDDED else None
    base = base or {"base model": settings.model, "training data": []}
    teachers = work.config.teach.teachers
    stated = {
        "base model": base["base model"],
        "teacher": ["human judgments" if name == HUMAN else name for name in teachers],
        "training data": [*base["training data"], work.collection.name],
    }
    made = {
        "training": told,
        "taught pairs sha256": file_hash(work.out / TAUGHT.file),
        "documents sha256": work.collection.corpus_hash,
        "judgments": work.made_of_human(),
        "teachers": {name: work.labeler(name).fingerprint for name in teachers if name != HUMAN},
        "generator of queries": work.config.synthesize.generator,
        "seed": work.seed,
    }
    prompt = None
    if settings.student == "causal-lm":
        prompt = read_prompt(settings.prompt, work.grades, "token").body
    return Trained(work.out / STUDENT, told["labeler"], stated, made, prompt)


def _export(work: Work, given: Mapping[str, list[Row]]) -> Made:
    section = work.config.export
    folder = work.out / section.folder
    found = export(
        section,
        _trained(work, given[TRAINED.name][0]),
        given[ACCEPTED.name][0],
        folder,
        work.grades,
        _test(work).pairs,
        teacher=_teacher(work),
    )
    told = {**found, "folder": section.folder, "sha256": file_hash(folder / NAME)}
    speed = found["throughput"]
    summary = {
        "labeler": str(folder),
        "id": found["labeler"],
        "files": found["files"],
        "bytes": found["bytes"],
        "pairs a second": speed["student"]["pairs_per_second"],
        "times as fast as its teacher": speed["ratio"] or f"not known: {speed['why']}",
    }
    return Made([told], summary)


def _export_made_of(work: Work) -> dict[str, Any]:
    return {"settings": work.config.export.model_dump(), "teacher": _teacher(work), "grades": work.scale}


def _export_check(work: Work) -> None:
    folder = work.out / work.config.export.folder
    if folder.resolve() in (work.out.resolve(), (work.out / STUDENT).resolve()):
        raise work.settings.problem("folder", f"export.folder is {folder}, which holds something else")


def _export_whole(work: Work, told: Row) -> bool:
    folder = work.out / work.config.export.folder
    try:
        check_files(folder, read_labeler(folder).files)
        return bool(file_hash(folder / NAME) == told["sha256"])
    except (LabelerError, UsageError, OSError):
        return False


EXPORTED = Stage(
    name="export",
    file="export.json",
    fields={"folder": (str,), "labeler": (str,), "sha256": (str,)},
    key=(),
    version=1,
    needs=(TRAINED.name, ACCEPTED.name, TAUGHT.name),
    made_of=_export_made_of,
    run=_export,
    check=_export_check,
    report=True,
    whole=_export_whole,
)
