"""Labelers on several machines: `--engine ray` asks them as actors of Ray Data.

The driver finds what the ledger lacks and cuts it into blocks. Each worker makes the labeler by its name, and
asks it about a block as `harness.labeling` does on one machine: it looks into the ledger first and adds each
batch of answers to it. Only counts, and the reasons of pairs without an answer, come back; the driver then
reads the ledger. So a worker that is lost costs nothing but the batch it was at: its block goes to another
worker, which finds in the ledger what is there already.

This is the only module that imports ray.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from harness.accounting import Counted, add
from harness.asking import Elsewhere, columns
from harness.errors import LabelerError, MissingExtra, StopgapError, UsageError
from harness.labeling import Labeler, label_id, load, signals
from harness.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RayEngine"]

_LOSSES = 6  # workers lost on one block: then it is the labeler that ends their processes
_LEAST, _MOST = 32, 1024  # pairs of a block
_BLOCKS = 4  # for each worker: more balance better, fewer cost less
_STORE = 256 * 2**20  # bytes of shared memory for Ray's objects on this machine; what is more goes to disk


class RayEngine:
    """Asks labelers on a Ray cluster (`harness.asking.Engine`).

    Parameters
    ----------
    workers: processes that each make the labeler; by default as many as the cluster has processors, or GPUs
        to give. address: of a cluster; by default RAY_ADDRESS, or else a cluster is started on this machine
        and stopped at the end. gpus: that each worker gets, a part of one or several; 0 hides them from it.

    Raises
    ------
    MissingExtra: ray is not installed. UsageError: there is no cluster at that address, or none of its
        machines has what a worker needs.
    """

    def __init__(self, workers: int | None = None, address: str | None = None, gpus: float = 0.0) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            import ray
            import ray.data
        except ModuleNotFoundError as exc:
            raise MissingExtra("ray", "ray") from exc
        self._ray, self._gpus = ray, gpus
        self._ours = not ray.is_initialized()
        if self._ours:
            _begin(ray, workers, address or os.environ.get("RAY_ADDRESS") or "local")
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        there = ray.cluster_resources()
        room = int(there.get("GPU", 0) / gpus) if gpus else int(there.get("CPU", 0))
        if room < 1:
            self.close()
            what = f"{gpus:g} GPUs" if gpus else "a processor"
            raise UsageError(f"no machine of the Ray cluster has {what} for a worker")
        self.workers = min(workers or room, room)

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; one that was started here is stopped."""
        if self._ours:
            self._ray.shutdown()

    def answer(
        self, labeler: Labeler, pairs: pl.DataFrame, ledger: Ledger, tell: Callable[[int], None]
    ) -> Elsewhere:
        """Have the pairs (distinct, not in the ledger) answered on the cluster (`harness.asking.Engine`).

        Raises
        ------
        UsageError: the labeler has no name by which a worker could make it. LabelerError: a worker could not
            make it, made another one, or was lost too often; or the labeler broke its protocol.
        """
        spec = getattr(labeler, "spec", None)
        if not spec:
            raise UsageError(
                f"labeler {label_id(labeler)} is an object of this process; Ray's workers need it by its name"
            )
        began = time.perf_counter()
        told = Elsewhere({}, pairs.height, 0, 0.0, {})
        with closing(self._notes(str(spec), labeler, pairs, ledger)) as notes:
            for note in notes:
                if "error" in note:
                    raise LabelerError(f"on a worker of Ray: {note['error']}")
                if "lost" in note:
                    raise _given_up(labeler, f"{note['lost']} workers were lost on the same pairs")
                told.refused.update({int(row): reason for row, reason in note["refused"]})
                add(told.usage, note["usage"])
                tell(note["pairs"])
        return told._replace(answered=pairs.height - len(told.refused), seconds=time.perf_counter() - began)

    def _notes(
        self, spec: str, labeler: Labeler, pairs: pl.DataFrame, ledger: Ledger
    ) -> Generator[Any, None, None]:
        """What workers tell of their blocks, as they are done."""
        data = self._ray.data
        size = int(np.clip(-(-pairs.height // (_BLOCKS * self.workers)), _LEAST, _MOST))
        numbered = pairs.select(list(columns(labeler))).with_row_index("row")
        blocks = [block.to_arrow() for block in numbered.iter_slices(size)]
        path = ledger.path if "://" in ledger.path else str(Path(ledger.path).absolute())
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        # Ray itself goes on without end, and a pair that ends its process would go round for ever.
        begun = self._ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Begun).remote()
        made_of = (spec, dict(labeler.grades), labeler.fingerprint, path, str(Path.cwd()), begun, _LOSSES)
        job = data.from_arrow(blocks).map_batches(
            _Worker,
            fn_constructor_args=made_of,
            batch_size=size,  # a block at a time, which Ray wants to be told where there are GPUs
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=min(self.workers, len(blocks))),
            num_cpus=1,
            num_gpus=self._gpus,
        )
        try:
            for row in job.iter_rows():
                yield json.loads(row["note"])
        except StopgapError:
            raise
        except Exception as exc:
            what = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
            raise _given_up(labeler, f"{type(exc).__name__}: {what}") from None


def _given_up(labeler: Labeler, why: str) -> LabelerError:
    return LabelerError(
        f"Ray gave up on labeler {label_id(labeler)} ({why}). A worker whose process ends is replaced, but "
        f"not more than {_LOSSES - 1} times on the same pairs: see whether the labeler runs out of memory.\n"
        "What was answered is in the ledger; the same command goes on from there"
    )


class _Begun:
    """Counts how often each block was begun, in a process that no labeler can end."""

    def __init__(self) -> None:
        self._times: dict[int, int] = {}

    def count(self, block: int) -> int:
        """One more; returns how often it was begun before."""
        before = self._times.get(block, 0)
        self._times[block] = before + 1
        return before


class _Worker:
    """Asks a labeler about blocks of pairs, in a process of its own."""

    def __init__(
        self,
        spec: str,
        grades: dict[int, str],
        fingerprint: str,
        ledger: str,
        folder: str,
        begun: Any,
        losses: int,
    ) -> None:
        self._begun, self._losses = begun, losses
        self._spec, self._grades, self._fingerprint, self._folder = spec, grades, fingerprint, folder
        self._ledger = Ledger(ledger, compacts=False)
        self._labeler: Labeler | None = None

    def __call__(self, block: Any) -> dict[str, list[str]]:
        """One row: what there is to tell of the block, as JSON."""
        frame = pl.from_arrow(block)
        assert isinstance(frame, pl.DataFrame)
        try:
            told = self._told(frame) if (lost := self._lost(frame)) < self._losses else {"lost": lost}
        except StopgapError as exc:
            told = {"error": str(exc)}
        return {"note": [json.dumps(told)]}

    def _lost(self, block: pl.DataFrame) -> int:
        """How many workers have begun with the block, and have not come back."""
        import ray

        return int(ray.get(self._begun.count.remote(int(block["row"][0]))))

    def _told(self, block: pl.DataFrame) -> dict[str, Any]:
        if self._labeler is None:
            if os.path.isdir(self._folder):
                os.chdir(self._folder)  # where files and modules that a name tells of are looked for
            self._labeler = load(self._spec, self._grades)
        if self._labeler.fingerprint != self._fingerprint:
            raise LabelerError(
                f"{self._spec} is another labeler here ({label_id(self._labeler)}) than where the command "
                "was given: its files or settings differ between the machines"
            )
        counted = Counted(self._labeler)
        found = signals(counted, block.select(list(columns(self._labeler))), ledger=self._ledger)
        refused = pl.DataFrame([block["row"], found["reason"]]).drop_nulls("reason")
        return {"pairs": block.height, "refused": refused.rows(), "usage": counted.took()}


def _begin(ray: Any, workers: int | None, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "configure_logging": True}
    if address == "local":
        # A worker takes up one processor: who asks for more workers than there are, gets them.
        cores = max(os.cpu_count() or 1, workers or 1)
        ray.init("local", num_cpus=cores, include_dashboard=False, object_store_memory=_STORE, **quiet)
        return
    try:
        ray.init(address, **quiet)
    except Exception as exc:
        what = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        raise UsageError(f"no Ray cluster at {address}: {what}\nNext: ray start --head") from None
