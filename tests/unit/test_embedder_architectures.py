"""Small random models of each architecture: their vectors are those of sentence-transformers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers import models as modules
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedder import Embedder
from retrieval.embedding.tokenization import probe_texts

TEXTS = [
    "A river is a natural stream of fresh water.",
    "naïve 東京 😀 zero\u200bwidth",
    "def f(x):\n    return x ** 2",
    *[" ".join(["water flows down the hills"] * n) for n in (1, 7, 40)],
    "x",
]
HIDDEN = 32
MAX_TOKENS = 96
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": MAX_TOKENS + 2,
    # Wide, or a random model gives all texts nearly one vector, and no test could fail.
    "initializer_range": 0.5,
}
GROUPED = SIZES | {"num_key_value_heads": 1, "head_dim": 16}
PADS = ("<pad>", "<s>", "</s>", "<unk>")
PAD_FIRST = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PAD_SECOND = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}

Pooling = Literal["mean", "cls", "lasttoken"]


@dataclass(frozen=True)
class Kind:
    """One architecture, and what follows it."""

    model_type: str
    pooling: Pooling
    sizes: dict[str, Any] = field(default_factory=lambda: SIZES)
    special: str = "<s> $A </s>"
    dense: tuple[tuple[int, int, str], ...] = ()
    prompts: dict[str, str] = field(default_factory=dict)
    truncate_dim: int | None = None


KINDS = {
    "bert, mean": Kind("bert", "mean"),
    "bert, cls": Kind("bert", "cls"),
    "bert, cls with a query's prompt": Kind("bert", "cls", prompts={"query": "find what says: "}),
    "distilbert, mean": Kind(
        "distilbert",
        "mean",
        {"dim": HIDDEN, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "initializer_range": 0.5},
    ),
    "roberta, mean": Kind("roberta", "mean"),
    "xlm-roberta, cls, both prompts": Kind(
        "xlm-roberta", "cls", prompts={"query": "query: ", "document": "passage: "}
    ),
    "mpnet, mean": Kind("mpnet", "mean"),
    "modernbert, cls": Kind(
        "modernbert", "cls", SIZES | {"local_attention": 16, "global_attn_every_n_layers": 2}
    ),
    "nomic_bert, mean, truncated": Kind(
        "nomic_bert", "mean", prompts={"query": "search_query: "}, truncate_dim=12
    ),
    "gemma3_text, mean, dense layers": Kind(
        "gemma3_text",
        "mean",
        GROUPED | {"use_bidirectional_attention": True, "sliding_window": 16},
        dense=((HIDDEN, 48, "Identity"), (48, 24, "Tanh")),
        prompts={"query": "task: search result | query: ", "document": "title: none | text: "},
    ),
    "qwen2, last token": Kind("qwen2", "lasttoken", GROUPED, special="$A </s>"),
    "qwen3, last token, truncated": Kind(
        "qwen3",
        "lasttoken",
        GROUPED,
        special="$A </s>",
        prompts={"query": "Instruct: find\nQuery:"},
        truncate_dim=16,
    ),
}


def save_tokenizer(folder: Path, kind: Kind) -> int:
    """Saves a byte-level tokenizer of a few hundred pieces; returns how many."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = list(PADS)
    if "roberta" in kind.model_type or kind.model_type == "mpnet":
        names[:2] = ["<s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=names, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(probe_texts() + TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=kind.special, special_tokens=[(name, tokenizer.token_to_id(name)) for name in PADS[:3]]
    )
    left = kind.pooling == "lasttoken"  # as these models are published; the embedder pads at the end
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        padding_side="left" if left else "right",
        model_max_length=MAX_TOKENS,
    ).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def save_model(folder: Path, kind: Kind) -> Path:
    """Saves a random sentence-transformers model; returns its folder."""
    torch.manual_seed(7)
    words = save_tokenizer(folder / "transformer", kind)
    ids = PAD_SECOND if "roberta" in kind.model_type or kind.model_type == "mpnet" else PAD_FIRST
    config = AutoConfig.for_model(kind.model_type, vocab_size=words, **kind.sizes, **ids)
    AutoModel.from_config(config).save_pretrained(folder / "transformer")
    parts: list[Any] = [
        modules.Transformer(str(folder / "transformer")),
        modules.Pooling(HIDDEN, pooling_mode=kind.pooling),
    ]
    for inputs, outputs, activation in kind.dense:
        parts.append(modules.Dense(inputs, outputs, activation_function=getattr(torch.nn, activation)()))
    if kind.model_type != "bert":
        parts.append(modules.Normalize())
    SentenceTransformer(
        modules=parts, device="cpu", prompts=kind.prompts, truncate_dim=kind.truncate_dim
    ).save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def model(name: str) -> Path:
        if name not in folders:
            folders[name] = save_model(tmp_path_factory.mktemp("model"), KINDS[name])
        return folders[name]

    return model


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("name", KINDS)
def test_vectors_are_those_of_sentence_transformers(
    name: str, saved: Callable[[str], Path], cache: Path
) -> None:
    kind, folder = KINDS[name], saved(name)
    exact = EmbedderConfig(model=folder, min_cosine=1.0)
    Embedder.prepare(exact, cache)
    embedder = Embedder(exact, cache, threads=1)
    assert embedder.numeric_form == "f32"
    reference = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    for ours, theirs in (
        (embedder.encode, reference.encode_document),
        (embedder.encode_queries, reference.encode_query),
    ):
        vectors, expected = ours(TEXTS), theirs(TEXTS, normalize_embeddings=True)
        assert vectors.shape == expected.shape == (len(TEXTS), embedder.dimension)
        assert (vectors * expected).sum(axis=1).min() >= 0.9999
        others = vectors @ vectors.T
        np.fill_diagonal(others, -1)
        assert others.max() < 0.9999, "a model that takes all texts for one can not tell anything"
    asked = (embedder.encode(TEXTS) * embedder.encode_queries(TEXTS)).sum(axis=1)
    assert (asked.min() > 0.99999) == (not kind.prompts), "a prompt makes another vector, and only a prompt"


@pytest.mark.parametrize("name", ["gemma3_text, mean, dense layers", "modernbert, cls", "qwen2, last token"])
def test_fast_forms_stay_near(name: str, saved: Callable[[str], Path], cache: Path) -> None:
    exact = EmbedderConfig(model=saved(name), min_cosine=1.0)
    # Weights drawn this wide lose more than trained ones.
    quantised = EmbedderConfig(model=saved(name), quantization="int8", min_int8_cosine=0.9)
    vectors = {}
    for config in (exact, EmbedderConfig(model=saved(name)), quantised):
        Embedder.prepare(config, cache)
        embedder = Embedder(config, cache, threads=1)
        vectors[config.quantization, config.min_cosine] = embedder.encode(TEXTS)
    floats = vectors["none", 1.0]
    assert (vectors["none", 0.999] * floats).sum(axis=1).min() >= 0.998
    assert (vectors["int8", 0.999] * floats).sum(axis=1).min() >= 0.9
