"""Tokenizers of model folders, and the probe texts on which two forms of a model are compared."""

from tokenizers import Tokenizer

from retrieval.embedding.model_folder import ModelFolder


def load_text_tokenizer(folder: ModelFolder) -> Tokenizer:
    """Returns a model's tokenizer, which cuts texts off where the model ceases to read."""
    tokenizer = Tokenizer.from_file(str(folder.tokenizer_path))
    tokenizer.no_padding()  # batches are padded later, to what their own longest text needs
    tokenizer.enable_truncation(folder.max_tokens)
    return tokenizer


def probe_texts() -> list[str]:
    """Returns prose and other texts, from one word to the longest that the model reads."""
    text = (
        "the river rises in the hills and falls to the sea; no one owns its water, it said (in 1897), but "
        "def flow(x: float) -> float: return x ** 2 % 7  # litres\n | table | 3.14 | http://host/a?b=c "
        "Überraschung naïve 東京 данные encryption licence protein dose of 5 mg twice daily"
    )
    words = text.split()
    return [
        " ".join((words[i:] + words[:i]) * repeats) for i, repeats in enumerate([1, 1, 2, 3, 5, 8])
    ] + words[:8]
