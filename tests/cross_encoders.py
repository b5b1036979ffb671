"""Cross-encoders with random weights for tests."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from retrieval.embedding.config import packaged_embedding_model


def save_cross_encoder(folder: Path, labels: int = 1, hidden_size: int = 32) -> Path:
    """Saves a small random cross-encoder in the format of sentence-transformers; returns its folder."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": hidden_size,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    config = BertConfig(vocab_size=30522, num_labels=labels, initializer_range=0.5, **sizes)
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(packaged_embedding_model(), model_max_length=64).save_pretrained(folder)
    return folder
