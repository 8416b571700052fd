"""Tiny random models with real tokenizers, made in a folder: they say nothing, in the shape of real ones.

What is heavy is imported inside the functions.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labelers.prompting import BUILT_IN, read_prompt

__all__ = [
    "BERT_INPUTS",
    "BERT_TOKENS",
    "GRADES",
    "SMALL",
    "byte_level",
    "lora",
    "prompts",
    "random_model",
    "word_pieces",
]

GRADES = {0: "none", 1: "related", 2: "useful", 3: "exact"}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
"""A shape, by the names that most architectures have for it."""
BERT_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BERT_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]


def prompts(mode: str = "token") -> list[str]:
    """The built-in prompts' own words: a tokenizer trained on them makes prompts as long as real ones do."""
    return [read_prompt(name, GRADES, mode).body for name in BUILT_IN]


def byte_level(
    folder: Path,
    texts: Iterable[str],
    size: int,
    *,
    special: Sequence[str] = (),
    added: Sequence[str] = (),
    template: str | None = None,
    **tokens: str,
) -> None:
    """A byte-level tokenizer with merges of the texts' words.

    `special`: its special tokens, from id 0 on. `added`: tokens that are not special. `tokens`: what
    transformers calls some of them, as `eos_token`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.add_tokens(list(added))
    whole = PreTrainedTokenizerFast(tokenizer_object=made, **tokens)
    whole.chat_template = template
    whole.save_pretrained(folder)


def word_pieces(
    folder: Path, vocabulary: Iterable[str], inputs: Sequence[str] = BERT_INPUTS, **settings: Any
) -> None:
    """A tokenizer as BERT's, which marks a pair's two parts; the vocabulary begins with BERT_TOKENS.

    `inputs`: what it gives a model.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {piece: number for number, piece in enumerate(dict.fromkeys([*BERT_TOKENS, *vocabulary]))}
    made = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(
        tokenizer_object=made, model_input_names=list(inputs), **names, **settings
    ).save_pretrained(folder)


def random_model(folder: Path, kind: str, head: str = "ForCausalLM", *, seed: int = 0, **config: Any) -> None:
    """A model of transformers' architecture `kind`, as `Llama`, with random weights."""
    import torch
    import transformers

    torch.manual_seed(seed)
    settings = getattr(transformers, f"{kind}Config")(**config)
    getattr(transformers, f"{kind}{head}")(settings).save_pretrained(folder)


def lora(base: Path, folder: Path, rank: int, modules: Sequence[str]) -> Path:
    """A LoRA adapter for a causal model, with an effect."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = peft.LoraConfig(r=rank, target_modules=list(modules), init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's and transformers' own affair
        peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder
