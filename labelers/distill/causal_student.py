"""A causal language model that is taught: an adapter, learnt by the logits of the grades' tokens.

It is asked as `hf:` asks (`labelers.causal_lm`): the same prompt, the same tokens, the same cutting. So what
was learnt is what the labeler `hf:MODEL?adapter=FOLDER` answers with.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from harness.errors import UsageError
from labelers.causal_base import quietly
from labelers.causal_files import find_model
from labelers.causal_tokens import Asked, ChatTokens
from labelers.distill.students import Group, Tensor, load_model, lora
from labelers.distill.train_data import Taught
from labelers.distill.train_settings import Lora, Train
from labelers.prompting import Cutter, read_prompt

__all__ = ["CausalStudent"]

_RATE = 2e-4


class CausalStudent:
    """The student.

    Parameters
    ----------
    settings: the model, the prompt and how much of a document is shown. grades: the collection's grades and
        their words. device: of torch.

    Raises
    ------
    MissingExtra: transformers or peft is not installed. LabelerError: the folder holds no causal language
        model. UsageError: the prompt asks for other grades than the collection's, or a grade is no one token.
    """

    by_query: bool

    def __init__(self, settings: Train, grades: Mapping[int, str], device: str) -> None:
        settings = settings if settings.lora else settings.model_copy(update={"lora": Lora()})
        self._settings, self._device = settings, device
        self.by_query = settings.loss == "lce"
        prompt = read_prompt(settings.prompt, grades, "token")
        if not prompt.on_scale:
            raise UsageError(
                f"prompt {settings.prompt!r} asks for {', '.join(prompt.answers)}; the collection's grades "
                f"are {', '.join(map(str, sorted(grades)))}: there is no token for each.\n"
                'Next: prompt = "wording" under [train], which asks for the collection\'s own'
            )
        files = find_model(settings.model)
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
        model, lost = load_model("AutoModelForCausalLM", files.path, dtype=dtype)
        if lost:
            raise UsageError(f"{files.path} is no whole causal language model: its weights lack {lost[0]}")
        self._takes = set(inspect.signature(model.forward).parameters)
        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        cutter = Cutter(1, settings.tokens, str(files.path))
        with quietly():
            self._tokens = ChatTokens(files.path, files.name, prompt, cutter, longest)
        self.module = lora(model, settings, "CAUSAL_LM")
        self.module.to(device)
        self._asked: dict[tuple[str, str], Asked] = {}

    def groups(self) -> list[Group]:
        """The adapter."""
        learnt = [value for value in self.module.parameters() if value.requires_grad]
        return [Group("body", learnt, self._settings.learning_rate or _RATE)]

    def lengths(self, pairs: Sequence[Taught]) -> list[int]:
        """Tokens of each prompt; 0 where the pair cannot be asked."""
        return [
            len(one.ids) if one.reason is None else 0 for one in self._tokens.ask([_texts(p) for p in pairs])
        ]

    def logits(self, pairs: Sequence[Taught]) -> Tensor:
        """Logits of the grades' tokens after each prompt."""
        import torch

        asked = [one.ids for one in self._tokens.ask([_texts(p) for p in pairs])]
        longest = max(map(len, asked))
        ids = torch.tensor([[0] * (longest - len(one)) + one for one in asked], device=self._device)
        shown = [[0] * (longest - len(one)) + [1] * len(one) for one in asked]
        mask = torch.tensor(shown, device=self._device)
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if "position_ids" in self._takes:  # places are counted without the padding
            given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        if (
            "logits_to_keep" in self._takes
        ):  # those of a whole vocabulary for each token would fill the memory
            given["logits_to_keep"] = 1
        return self.module(**given).logits[:, -1, self._tokens.answers]

    def save(self, folder: Path) -> str:
        """The adapter."""
        # Not where this machine has the model, but what the settings call it.
        self.module.peft_config["default"].base_model_name_or_path = self._settings.model
        with quietly():
            self.module.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # a card to fill in, which nobody has
        asked = urlencode({"prompt": self._settings.prompt, "tokens": self._settings.tokens})
        return f"hf:{self._settings.model}?adapter=FOLDER&{asked}"


def _texts(pair: Taught) -> tuple[str, str]:
    return pair.query, pair.text
