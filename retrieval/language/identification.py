"""Detects the language of a text by py3langid (Lui and Baldwin 2012), whose model is inside its package."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNDETERMINED = "und"
"""The code of ISO 639-2 for an undetermined language."""
NO_LANGUAGE = "zxx"
"""The code of ISO 639-2 for text in no language."""

_SAMPLE_CHARS = 2000  # half a millisecond per thousand characters
_MIN_LETTERS = 20
_MIN_PROBABILITY = 0.5
_LETTERS = re.compile(r"[^\W\d_]+")
_MIN_SHARE = 0.8
"""How probable one of several languages must be, of all of them, to count as a question's."""


def detect_language(text: str) -> str:
    """Returns the ISO 639 code of the language of a text.

    Args:
        text: Normalised text, of which the first 2,000 characters are read.

    Returns:
        Two lower-case letters where ISO 639-1 has the language, else the three letters of ISO 639-3; `zxx`
        for text in no language; `und` for fewer than 20 letters, and where no language has a probability of
        0.5.
    """
    sample = text[:_SAMPLE_CHARS]
    letters = " ".join(_LETTERS.findall(sample))
    if len(letters) < _MIN_LETTERS:
        return UNDETERMINED
    code, probability = _identifier().classify(letters)
    return str(code) if probability >= _MIN_PROBABILITY else UNDETERMINED


def in_language_of(question: str, texts: Sequence[str]) -> list[bool]:
    """Returns whether each text is in the question's language, which is one of the languages of the texts.

    A question is short, so only the languages that the texts are in are compared. Where they are all in one,
    where the question fits none of them clearly, and for a text whose language is undetermined, the answer is
    true.
    """
    languages = [detect_language(text) for text in texts]
    possible = set(languages) - {UNDETERMINED, NO_LANGUAGE}
    if len(possible) < 2:
        return [True] * len(texts)
    ranked = {code: share for code, share in _identifier().rank(question) if code in possible}
    best = max(ranked, key=ranked.__getitem__)
    if ranked[best] < _MIN_SHARE * sum(ranked.values()):
        return [True] * len(texts)
    return [language not in possible - {best} for language in languages]


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
