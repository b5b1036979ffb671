"""A random generator of one narrow layer, in transformers' form: real and small."""

from pathlib import Path


def save_tiny_generator(folder: Path, context_tokens: int = 256) -> Path:
    """Saves the model, its tokenizer and its chat template to a folder, and returns the folder."""
    import torch
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from retrieval.embedding.config import packaged_embedding_model

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=30522,
        max_position_embeddings=context_tokens,
        **sizes,
        num_key_value_heads=2,
        eos_token_id=102,
        bos_token_id=101,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer.from_file(str(packaged_embedding_model() / "tokenizer.json"))
    words.no_truncation()
    words.no_padding()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[SEP]", pad_token="[PAD]")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}[SEP]\n{% endfor %}"
    )
    tokenizer.save_pretrained(folder)
    return folder
