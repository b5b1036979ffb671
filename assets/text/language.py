"""Detects the language of a text by py3langid (Lui and Baldwin 2012), whose model is inside its package."""

import re
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


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
