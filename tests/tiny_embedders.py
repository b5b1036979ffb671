"""A small embedder that is trained in seconds, and lists for it."""

import shutil
from pathlib import Path

from retrieval.embedding.config import packaged_embedding_model
from training.jobs.ranked_lists import RankedLists, RankedQuestion, ranked_lists


def make_tiny_embedder(folder: Path, seed: int = 0, width: int = 64) -> Path:
    """Writes a model of two narrow layers, with random weights, to a folder; vectors are `width` long."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    bert = BertModel(
        BertConfig(
            vocab_size=30522,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    )
    bert.save_pretrained(folder / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(packaged_embedding_model() / name, folder / "bert")
    transformer = modules.Transformer(str(folder / "bert"), max_seq_length=64)
    pooling = modules.Pooling(width, pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(
        str(folder / "model"), create_model_card=False
    )
    shutil.rmtree(folder / "bert")
    return folder / "model"


_ASKED = ["river", "mountain", "bread", "copper", "violin", "harbour", "planet", "garden", "window", "castle"]
_ANSWERED = ["stream", "peak", "loaf", "metal", "music", "port", "orbit", "flower", "glass", "tower"]


def tiny_lists(count: int = 24) -> RankedLists:
    """Returns questions in other words than their passages: which words belong together has to be learned."""
    pairs = [(number % 10, (3 * number + number // 10 + 1) % 10) for number in range(count)]
    texts = {f"p{number}": f"{_ANSWERED[a]} {_ANSWERED[b]}" for number, (a, b) in enumerate(pairs)}
    questions = [
        RankedQuestion(
            name=f"q{number}",
            question=f"{_ASKED[a]} {_ASKED[b]}",
            passages=[f"p{(number + step) % count}" for step in range(8)],
            scores=[0.9 - 0.1 * step for step in range(8)],
            relevant=[f"p{number}"],
            judged=number % 3 != 0,
        )
        for number, (a, b) in enumerate(pairs)
    ]
    return ranked_lists(questions, texts)
