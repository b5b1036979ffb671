"""The language of a text, by py3langid, whose model is inside its package (Lui and Baldwin 2012)."""

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNDETERMINED = "und"
"""ISO 639-2's code for a language that is not known."""
NO_LANGUAGE = "zxx"
"""ISO 639-2's code for what is no language."""

_SAMPLE_CHARS = 2000  # it costs half a millisecond a thousand
_MIN_LETTERS = 20
_MIN_PROBABILITY = 0.5
_LETTERS = re.compile(r"[^\W\d_]+")


def detect_language(text: str) -> str:
    """The ISO 639 code of the language that most of a text's beginning is in.

    Args:
        text: Normalised text; its first 2,000 characters are looked at.

    Returns:
        Two lower-case letters where ISO 639-1 has the language, else the three of ISO 639-3; `zxx` for what
        is no language; `und` for fewer than 20 letters, and where no language is likelier than all others.
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
