"""Where a run came from: its metadata twin, in the vocabulary of ir_metadata.

ir_metadata (Breuer, Keller and Schaer, SIGIR 2022) describes a run by Platform, Research goal,
Implementation, Method, Actor and Data. The twin is a YAML file of those keys, so that its readers take it;
the key `run` is ours and holds what they have no word for. The research goal is the user's to add, and
nobody's name is collected.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import labeling, steps
from harness.trec_bytes import file_hash, replace_file

if TYPE_CHECKING:
    import polars as pl

    from harness.collection import Collection

__all__ = ["metadata", "write_twin"]

_LIBRARIES = ("numpy", "pandas", "polars", "ir-datasets", "pyterrier-alpha", "onnxruntime", "tokenizers")
_TOOLKITS = ("pyterrier", "pyterrier-pisa")
_WITH_ENCODER = ("dense", "hybrid", "bm25+rerank")


def metadata(
    tag: str, collection: Collection, pipeline: str, depth: int, command: Sequence[str] | None = None
) -> dict[str, Any]:
    """What is known of a run before it is written, by ir_metadata's keys.

    Parameters
    ----------
    tag: the run's name. `pipeline`, `depth`: as `retrieve` was called.
    command: the arguments that made the run; by default those of this process.
    """
    commit, changed, repository = _git()
    source: dict[str, Any] = {"lang": ["python"], "repository": repository, "commit": commit}
    return _known(
        {
            "schema-version": 0.1,
            "run-version": 1.0,
            "tag": tag,
            "platform": _platform(),
            "implementation": {
                "executable": {"cmd": shlex.join(_called() if command is None else command)},
                "source": {**source, "uncommitted changes": changed},
            },
            "method": {
                "automatic": True,
                "score ties": "document id, descending by bytes; scores compared in single precision",
                **_method(pipeline, depth, collection.grades),
            },
            "actor": {"role": "experimenter"},
            "data": {
                "test collection": {
                    "name": collection.name,
                    "ir_datasets": collection.name.removeprefix("irds:")
                    if collection.name.startswith("irds:")
                    else None,
                    "documents": collection.size,
                    "corpus sha256": collection.corpus_hash,
                    "topics": collection.topics.height,
                }
            },
        }
    )


def _called() -> list[str]:
    """The arguments of this process, the command by its name: where it lies is the machine's affair."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def write_twin(
    path: Path, known: dict[str, Any], run_file: Path, run: pl.DataFrame, without: Iterable[str]
) -> None:
    """Write `known`, and what the written run itself says, to `path`.

    Parameters
    ----------
    run: RUN as it was written to `run_file`. `without`: the topics that got no document.
    """
    import yaml  # type: ignore[import-untyped, unused-ignore]

    facts = {
        "file": run_file.name,
        "sha256": file_hash(run_file),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": run.height,
        "topics": run["query_id"].n_unique(),
        "topics without documents": sorted(without),
    }
    text = yaml.safe_dump({**known, "run": facts}, sort_keys=False, allow_unicode=True, width=110)
    with replace_file(path) as file:
        file.write(text.encode())


def _method(pipeline: str, depth: int, grades: dict[int, str]) -> dict[str, Any]:
    """The stages of a pipeline, and what was done to words where words were indexed."""
    found = min(depth, steps.RERANKED) if pipeline == "bm25+rerank" else depth
    stages: dict[str, dict[str, Any]] = {
        "bm25": {"method": "PISA BM25", "base model": "none", **steps.BM25, "depth": found},
        "qld": {
            "method": "PISA query likelihood, Dirichlet smoothing",
            "base model": "none",
            **steps.QLD,
            "depth": depth,
        },
        "dense": {"method": "cosine of vectors, exact search", "depth": depth},
        "hybrid": {
            "method": "reciprocal rank fusion",
            "base model": "none",
            "k": steps.RRF_K,
            "depth": depth,
            "interpolates": ["bm25", "dense"],
        },
        "bm25+rerank": {"method": "score of a labeler", "reranks": "bm25"},
    }
    if pipeline not in stages:
        return {"retrieval": [{"name": pipeline, "depth": depth}]}
    if pipeline in _WITH_ENCODER:
        encoder = labeling.load(steps.ENCODER, grades)
        # what the encoder was made of, by which `circularity` knows a relative of the labeler
        made_of = getattr(encoder, "card", {})
        stages["dense"] |= {"encoder": labeling.label_id(encoder), **made_of}
        stages["bm25+rerank"] |= {"labeler": labeling.label_id(encoder), **made_of}
    words = {
        "tokenizer": "PISA's English tokenizer after harness.terrier.plain_words",
        "stemmer": steps.STEMMER,
        "stopwords": steps.STOPWORDS,
    }
    before = {"hybrid": ["bm25", "dense"], "bm25+rerank": ["bm25"]}.get(pipeline, [])
    retrieval = [{"name": name, **stages[name]} for name in [*before, pipeline]]
    return {"indexing": words, "retrieval": retrieval} if pipeline != "dense" else {"retrieval": retrieval}


def _platform() -> dict[str, Any]:
    return {
        "hardware": {
            "cpu": {
                "model": _cpu_model(),
                "architecture": platform.machine(),
                "operation mode": platform.architecture()[0].replace("bit", "-bit"),
                "number of cores": os.cpu_count(),
            },
            "ram": _memory(),
        },
        "operating system": {
            "kernel": f"{platform.system()} {platform.release()}",
            "distribution": _distribution(),
        },
        "software": {
            "libraries": {
                "python": [f"python=={platform.python_version()}", *_versions(("stopgap", *_LIBRARIES))]
            },
            "retrieval toolkit": _versions(_TOOLKITS),
        },
    }


def _versions(packages: Iterable[str]) -> list[str]:
    found = []
    for package in packages:
        try:
            found.append(f"{package}=={version(package)}")
        except PackageNotFoundError:
            continue
    return found


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _memory() -> str | None:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB"
    except (AttributeError, OSError, ValueError):
        return None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _git() -> tuple[str | None, bool | None, str | None]:
    """(commit, whether tracked files differ from it, URL) of the repository around us; None where unknown."""
    commit = _git_says("rev-parse", "HEAD")
    if commit is None:
        return None, None, None
    changed = _git_says("status", "--porcelain", "--untracked-files=no")
    url = _git_says("remote", "get-url", "origin") or ""
    # a URL may hold a user's name and password
    return commit, None if changed is None else bool(changed), re.sub("//[^/@]*@", "//", url) or None


def _git_says(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _known(tree: dict[str, Any]) -> dict[str, Any]:
    """`tree` without the keys whose value is None."""
    return {k: _known(v) if isinstance(v, dict) else v for k, v in tree.items() if v is not None}
