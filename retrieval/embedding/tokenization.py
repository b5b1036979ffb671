"""Tokenizers of model folders, what their vocabulary holds, and texts to compare two forms of a model on."""

import unicodedata
from collections import Counter

from tokenizers import Tokenizer

from retrieval.embedding.model_folder import ModelFolder


def load_text_tokenizer(folder: ModelFolder) -> Tokenizer:
    """Returns a model's tokenizer, which cuts texts off where the model ceases to read."""
    tokenizer = Tokenizer.from_file(str(folder.tokenizer_path))
    tokenizer.no_padding()  # batches are padded later, to what their own longest text needs
    tokenizer.enable_truncation(folder.max_tokens)
    return tokenizer


_MIN_VOCABULARY_SHARE = 0.7


def has_words_of(tokenizer: Tokenizer, text: str) -> bool:
    """Returns whether most letters of a text stand in tokens that can mean something.

    A vocabulary that was not made for a script reads it as unknown tokens or letter by letter, and the
    model's vectors then say little about it. An ideograph means something by itself; another letter only
    together with others. Of the paragraphs of the Universal Declaration of Human Rights, the share of such
    letters by the default model's vocabulary is 0.73 to 1.0 in English, German, French, Spanish, Polish,
    Finnish, Turkish and Vietnamese, and at most 0.64 in Chinese, 0.28 in Japanese and Arabic, and 0 in
    Korean, Thai, Hebrew and Hindi.
    """
    unknown = {tokenizer.token_to_id("[UNK]"), tokenizer.token_to_id("<unk>")}
    encoding = tokenizer.encode(text, add_special_tokens=False)
    spans = list(zip(encoding.ids, encoding.offsets, strict=True))
    letters = sum(map(str.isalpha, text[: max((end for _, (_, end) in spans), default=0)]))
    times = Counter(offsets for _, offsets in spans)
    known = 0
    for token, (start, end) in spans:
        inside = sum(map(str.isalpha, text[start:end]))
        alone = inside == 1 and times[start, end] == 1 and _is_ideograph(text[start:end])
        known += inside if token not in unknown and (inside > 1 or alone) else 0
    return known >= _MIN_VOCABULARY_SHARE * letters


def _is_ideograph(piece: str) -> bool:
    return any(unicodedata.name(character, "").startswith("CJK ") for character in piece)


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
