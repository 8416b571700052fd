"""The one training loop: AdamW with a rate that rises and falls, checkpoints, early stopping.

What is learnt hangs on the seed, the settings and the pairs; on a CPU with one number of threads to the last
bit, also when the training was killed and went on. A phase is a list of pairs and a loss; each phase starts
from the weights that the one before left, with an optimizer of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from harness.errors import LabelerError
from labelers.distill.checkpoints import Checkpoints
from labelers.distill.losses import weighted
from labelers.distill.students import Student, Tensor, trained
from labelers.distill.train_data import Taught, batches
from labelers.distill.train_log import Log, agreement
from labelers.distill.train_settings import Train

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.labeling import Progress

__all__ = ["Dev", "Noting", "Phase", "Trainer"]

_DECAY, _CLIP = 0.01, 1.0
_LINES = 100  # of the log, for a phase

Loss = Callable[[Tensor, Sequence[int]], Tensor]
"""(logits of some rows, their numbers) -> the losses of these rows."""


@runtime_checkable
class Noting(Protocol):
    """A progress that can also show a few words, such as the loss."""

    def note(self, text: str) -> None:
        """Show them beside the bar."""


@dataclass(frozen=True)
class Dev:
    """The pairs by which one sees when to stop: `probs` (pairs, grades) is what the teachers say of them."""

    pairs: Sequence[Taught]
    weights: NDArray[np.float64]
    loss: Loss
    probs: NDArray[np.float64]
    grades: Sequence[int]


@dataclass(frozen=True)
class Phase:
    """What is learnt at a stretch.

    Attributes
    ----------
    name: for the log. weights: of the pairs, > 0. loss: of rows of `pairs`. epochs: at most.
    dev: with it, the weights of the best epoch are what the phase leaves; without it, those of the last.
    """

    name: str
    pairs: Sequence[Taught]
    weights: NDArray[np.float64]
    loss: Loss
    epochs: int
    dev: Dev | None = None


@dataclass
class _State:
    """Where a training is: what a checkpoint holds, besides weights, optimizer and random numbers."""

    phase: int = 0
    epoch: int = 0
    in_epoch: int = 0
    """Steps of this epoch that are done."""
    step: int = 0
    """Steps of this phase that are done."""
    steps: int = 0
    """Steps of all phases."""
    loss: float = 0.0
    """Sum of the losses since the last line of the log, and of how many steps."""
    summed: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    since: int = 0
    """Epochs since the best one."""
    log: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    """What the dev pairs said after each epoch of the last phase; epoch 0 is before the first step."""


class Trainer:
    """A training: its student, its settings and where it keeps what it needs to go on.

    Parameters
    ----------
    progress: is told of steps; one that can note is told of the loss.
    """

    def __init__(
        self,
        student: Student,
        settings: Train,
        seed: int,
        checkpoints: Checkpoints,
        log: Log,
        progress: Progress | None = None,
    ) -> None:
        import torch

        self._torch = torch
        self._student, self._settings, self._seed = student, settings, seed
        self._checkpoints, self._log, self._progress = checkpoints, log, progress
        self._device = next(student.module.parameters()).device
        self._bf16 = self._device.type == "cuda" if settings.bf16 is None else settings.bf16
        self._groups = student.groups()
        self._best: dict[str, Tensor] | None = None
        self._at = _State()

    def run(self, phases: Sequence[Phase]) -> dict[str, Any]:
        """Learn, from the last checkpoint on if there is one. The student is left with what it learnt.

        Returns
        -------
        steps: of all phases. resumed_at: the step that it went on from, None: it began anew. best_epoch and
        history: of the last phase, with `loss`, `auc` and `kappa` on the dev pairs; empty without any.

        Raises
        ------
        LabelerError: the loss is no number. InputError: no checkpoint can be written, or none read.
        """
        torch = self._torch
        state = self._checkpoints.last()
        plans = [self._plan(number, phase) for number, phase in enumerate(phases)]
        self._total = sum(len(steps) for plan in plans for steps in plan)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(self._seed % 2**63)
            resumed = self._restore(state)
            for number, phase in enumerate(phases):
                if number < self._at.phase:
                    continue
                if number > self._at.phase:
                    self._at = _State(phase=number, steps=self._at.steps)
                    state = None
                self._learn(phase, plans[number], state and state["optimizer"])
        if self._progress:
            self._progress(self._total, self._total)
        at = self._at
        return {
            "steps": at.steps,
            "resumed_at": resumed,
            "best_epoch": at.best_epoch,
            "history": at.history,
        }

    def _plan(self, number: int, phase: Phase) -> list[list[list[list[int]]]]:
        """For each epoch the steps, for each step the batches, for each batch the rows."""
        given, lengths = self._settings, self._student.lengths(phase.pairs)
        queries = [pair.query_id for pair in phase.pairs]
        plan = []
        for epoch in range(phase.epochs):
            key = (self._seed, number, epoch)
            made = batches(queries, lengths, given.batch, by_query=self._student.by_query, key=key)
            plan.append([made[n : n + given.accumulate] for n in range(0, len(made), given.accumulate)])
        return plan

    # -- a phase ---------------------------------------------------------------------------------------------

    def _learn(self, phase: Phase, plan: list[list[list[list[int]]]], state: dict[str, Any] | None) -> None:
        at, given = self._at, self._settings
        optimizer = self._optimizer()
        if state:
            optimizer.load_state_dict(state)
        total = sum(map(len, plan))
        every = max(1, total // _LINES)
        if phase.dev and not at.history:
            self._look(phase, phase.dev)
        while at.epoch < phase.epochs and not (phase.dev and at.since >= given.patience):
            steps = plan[at.epoch]
            while at.in_epoch < len(steps):
                rate = self._rates(optimizer, at.step, total)
                at.loss += self._step(phase, steps[at.in_epoch], optimizer)
                at.in_epoch, at.step, at.steps, at.summed = (
                    at.in_epoch + 1,
                    at.step + 1,
                    at.steps + 1,
                    at.summed + 1,
                )
                if at.step % every == 0:
                    mean = at.loss / at.summed
                    self._log.add(phase=phase.name, epoch=at.epoch + 1, step=at.step, loss=mean, rate=rate)
                    self._note(f"{phase.name}, epoch {at.epoch + 1}, loss {mean:.3f}")
                    at.loss, at.summed = 0.0, 0
                if at.step % given.checkpoint == 0 and at.in_epoch < len(steps):
                    self._save(optimizer)
                if self._progress:
                    self._progress(at.steps, self._total)
            at.epoch, at.in_epoch = at.epoch + 1, 0
            if phase.dev:
                self._look(phase, phase.dev)
            self._save(optimizer)
        if self._best is not None:
            self._put(self._best)
            self._best = None

    def _step(self, phase: Phase, micro: list[list[int]], optimizer: Any) -> float:
        """One step over some batches; returns the loss."""
        torch = self._torch
        self._student.module.train()
        total = float(phase.weights[[row for rows in micro for row in rows]].sum())
        value = 0.0
        for rows in micro:
            with self._autocast():
                logits = self._student.logits([phase.pairs[row] for row in rows])
            loss = weighted(phase.loss(logits.float(), rows), phase.weights[rows], total)
            loss.backward()
            value += float(loss.detach())
        learnt = [p for group in self._groups for p in group.parameters]
        norm = float(torch.nn.utils.clip_grad_norm_(learnt, _CLIP))
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise LabelerError(
                f"the loss is {value} and its gradient's length {norm} at step {self._at.step + 1} of "
                f"{phase.name}: nothing can be learnt from here. What was learnt before is in "
                f"{self._checkpoints.folder}\n"
                f"Next: a smaller learning_rate under [train]{', or bf16 = false' if self._bf16 else ''}"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value

    def _optimizer(self) -> Any:
        """AdamW; weights decay, biases and scales do not."""
        groups = []
        for name, parameters, rate in self._groups:
            for decay, chosen in (
                (_DECAY, [p for p in parameters if p.ndim > 1]),
                (0.0, [p for p in parameters if p.ndim < 2]),
            ):
                if chosen:
                    groups.append(
                        {"params": chosen, "lr": rate, "weight_decay": decay, "greatest": rate, "name": name}
                    )
        return self._torch.optim.AdamW(groups)

    def _rates(self, optimizer: Any, step: int, total: int) -> float:
        """Set the learning rates of a step; returns the body's."""
        ramp = round(self._settings.ramp * total)
        factor = (step + 1) / ramp if step < ramp else (total - step) / (total - ramp)
        for group in optimizer.param_groups:
            group["lr"] = group["greatest"] * factor
        return float(optimizer.param_groups[0]["lr"])

    def _autocast(self) -> Any:
        if not self._bf16:
            return nullcontext()
        return self._torch.autocast(self._device.type, dtype=self._torch.bfloat16)

    # -- the dev pairs ---------------------------------------------------------------------------------------

    def _look(self, phase: Phase, dev: Dev) -> None:
        """Measure on the dev pairs, and keep the weights if they are the best so far."""
        at = self._at
        logits = self._answers(dev.pairs)
        by_query: dict[str, list[int]] = {}
        for row, pair in enumerate(dev.pairs):
            by_query.setdefault(pair.query_id, []).append(row)
        total = float(dev.weights.sum())
        loss = sum(
            float(weighted(dev.loss(logits[rows], rows), dev.weights[rows], total))
            for rows in by_query.values()
        )
        if not math.isfinite(loss):
            raise LabelerError(
                f"the loss on the dev topics is {loss} after epoch {at.epoch} of {phase.name}.\n"
                "Next: a smaller learning_rate under [train]"
            )
        probs = logits.double().softmax(dim=1).cpu().numpy()
        found = {"epoch": at.epoch, "loss": loss, **agreement(probs, dev.probs, dev.grades)}
        at.history.append(found)
        said = {f"dev_{key}": value for key, value in found.items() if key != "epoch"}
        self._log.add(phase=phase.name, epoch=at.epoch, step=at.step, **said)
        self._note(f"{phase.name}, epoch {at.epoch}, dev loss {loss:.3f}")
        if loss < at.best_loss:
            at.best_loss, at.best_epoch, at.since = loss, at.epoch, 0
            self._best = {name: value.detach().clone() for name, value in trained(self._student).items()}
        else:
            at.since += 1

    def _answers(self, pairs: Sequence[Taught]) -> Tensor:
        """Logits of all pairs, in their order."""
        torch, size = self._torch, 2 * self._settings.batch
        lengths = self._student.lengths(pairs)
        order = sorted(range(len(pairs)), key=lambda row: lengths[row])
        found: list[Tensor] = []
        self._student.module.eval()
        for first in range(0, len(order), size):
            with torch.no_grad(), self._autocast():
                found.append(
                    self._student.logits([pairs[row] for row in order[first : first + size]]).float()
                )
        back = torch.tensor(np.argsort(order, kind="stable"), device=self._device)
        return torch.cat(found)[back]

    # -- checkpoints -----------------------------------------------------------------------------------------

    def _save(self, optimizer: Any) -> None:
        torch = self._torch
        self._at.log = self._log.size
        cuda = self._device.type == "cuda"
        state = {
            "at": dict(vars(self._at)),
            "weights": {name: value.detach() for name, value in trained(self._student).items()},
            "best": self._best,
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self._device) if cuda else None,
        }
        self._checkpoints.save(self._at.steps, state)

    def _restore(self, state: dict[str, Any] | None) -> int | None:
        """Go back to a checkpoint; returns its step."""
        torch = self._torch
        if state is None:
            self._log.cut(0)
            return None
        self._at = _State(**state["at"])
        self._put(state["weights"])
        best = state["best"]
        self._best = best and {name: value.to(self._device) for name, value in best.items()}
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self._device)
        self._log.cut(self._at.log)
        return self._at.steps

    def _put(self, weights: dict[str, Tensor]) -> None:
        """Give the student these weights."""
        with self._torch.no_grad():
            for name, value in trained(self._student).items():
                value.copy_(weights[name])

    def _note(self, text: str) -> None:
        if isinstance(self._progress, Noting):
            self._progress.note(text)
