"""Students: models that give logits over the grades for pairs, can be trained, and saved as a labeler.

The training (`labelers.distill.trainer`) knows of a student what `Student` says and nothing else. A further
kind is a module with a function `(Train, grades, device) -> Student` and a line in `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from harness.errors import LabelerError, MissingExtra, first_line
from labelers import devices
from labelers.causal_base import quietly
from labelers.distill.train_data import Taught
from labelers.distill.train_settings import Train

__all__ = [
    "Group",
    "Student",
    "Tensor",
    "attention",
    "build",
    "load_model",
    "lora",
    "place",
    "trained",
]

Tensor = Any


class Group(NamedTuple):
    """Parameters with one learning rate: `rate` is the greatest."""

    name: str
    parameters: list[Any]
    rate: float


class Student(Protocol):
    """A model that is taught. A shape to follow, not a class to inherit from."""

    module: Any
    """The torch module; what of it has requires_grad is what is learnt, kept in checkpoints and restored."""
    by_query: bool
    """Whether the rows of a query should come in the same batch, as far as they fit."""

    def groups(self) -> list[Group]:
        """What is to be learnt: every parameter with requires_grad once, body and head by their rates."""

    def lengths(self, pairs: Sequence[Taught]) -> list[int]:
        """About how long each is, in any unit, by which rows are put into batches. 0: cannot be read."""

    def logits(self, pairs: Sequence[Taught]) -> Tensor:
        """Logits over the grades, ascending, with gradients: (pairs, grades)."""

    def save(self, folder: Path) -> str:
        """Write what a labeler loads; returns its name, with FOLDER where the folder stands.

        The student is of no further use after this.
        """


_KINDS: Mapping[str, str] = {
    "cross-encoder": "labelers.distill.cross_student:CrossStudent",
    "causal-lm": "labelers.distill.causal_student:CausalStudent",
}


def build(settings: Train, grades: Mapping[int, str]) -> Student:
    """The student that the settings name, on its device, as it is before it learns.

    Its new layers are random by torch's own generator, which the caller has seeded.

    Raises
    ------
    MissingExtra: torch, transformers or peft is not installed. LabelerError: the model cannot be loaded.
    UsageError: it cannot do what the settings ask.
    """
    module, _, name = _KINDS[settings.student].partition(":")
    make: Callable[[Train, Mapping[int, str], str], Student] = getattr(import_module(module), name)
    return make(settings, grades, place(settings.device))


def place(device: str) -> str:
    """The device, as torch calls it.

    Raises
    ------
    MissingExtra: torch is not installed. UsageError: no such device.
    """
    return devices.place(device, said="train.device = ", cpu='device = "cpu"', extra="train")


def attention(settings: Train, device: str) -> dict[str, str]:
    """How attention is computed: plainly where that is faster, in bfloat16 on a CPU."""
    return {"attn_implementation": "eager"} if settings.bf16 and device == "cpu" else {}


def trained(student: Student) -> dict[str, Tensor]:
    """What is learnt, by name."""
    return {name: value for name, value in student.module.named_parameters() if value.requires_grad}


def load_model(kind: str, path: Path, **settings: Any) -> tuple[Any, list[str]]:
    """A model of transformers from a folder, and the names of the weights that are new.

    Parameters
    ----------
    kind: the class that loads it, such as AutoModelForCausalLM.

    Raises
    ------
    MissingExtra: transformers is not installed. LabelerError: the folder holds no such model.
    """
    try:
        import transformers
    except ModuleNotFoundError as exc:
        raise MissingExtra("transformers", "train") from exc
    try:
        with quietly():
            model, told = getattr(transformers, kind).from_pretrained(
                path,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **settings,
            )
    except Exception as exc:
        raise LabelerError(f"{path} is no model to train: {first_line(exc)}") from exc
    new = {*told["missing_keys"], *(str(one[0]) for one in told.get("mismatched_keys", ()))}
    return model, sorted(new)


def lora(model: Any, settings: Train, task: str, whole: Sequence[str] = ()) -> Any:
    """The model with an adapter on its linear layers, which alone is learnt, beside `whole` layers.

    Raises
    ------
    MissingExtra: peft is not installed.
    """
    try:
        import peft
    except ModuleNotFoundError as exc:
        raise MissingExtra("peft", "train") from exc
    assert settings.lora is not None
    config = peft.LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules="all-linear",
        modules_to_save=list(whole) or None,
        task_type=task,
    )
    return peft.get_peft_model(model, config)
