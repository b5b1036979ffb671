"""Text in every encoding that files have is read right, or it is said that its encoding is in doubt."""

import json
from collections import defaultdict
from pathlib import Path
from random import Random
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.parsing.blocks import ExtractionError
from assets.parsing.content_type import detect_media_type
from assets.parsing.decoding import decode_text, decoding_doubt
from assets.parsing.extract import extract_document
from assets.text.signals import quality_signals

TEXTS: dict[str, str] = json.loads((Path(__file__).parents[1] / "encodings/texts.json").read_text("utf-8"))
ENCODINGS = {
    **{
        "ja": ["cp932", "euc_jp", "iso2022_jp"],
        "zh_hans": ["gb18030"],
        "zh_hant": ["big5"],
        "ko": ["euc_kr"],
    },
    **{"ru": ["koi8_r", "cp1251", "iso8859_5", "cp866"], "uk": ["koi8_u", "cp1251"], "bg": ["cp1251"]},
    **{"el": ["iso8859_7", "cp1253"], "he": ["cp1255"], "ar": ["cp1256"], "th": ["cp874"]},
    **{language: ["iso8859_2", "cp1250"] for language in ("pl", "cs", "hu")},
    **{"ro": ["iso8859_2"], "tr": ["cp1254"], "lt": ["cp1257"], "lv": ["cp1257"], "vi": ["cp1258"]},
    **{"de": ["cp1252", "mac_roman", "cp437"], "fr": ["cp1252", "iso8859_15", "mac_roman"]},
    **{"es": ["cp1252", "mac_roman"], "pt": ["cp1252"], "sv": ["cp1252"]},
}
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
LENGTHS = (50, 200, 1000)
PASSAGES = 5


def passages(length: int) -> list[tuple[str, str, str, bytes]]:
    """Returns passages of that many characters: their language, encoding, text and bytes."""
    random = Random(length)
    found = []
    for language, encodings in ENCODINGS.items():
        text = TEXTS[language]
        for encoding in (*encodings, *WIDE):
            for _ in range(PASSAGES):
                at = random.randrange(len(text) - length)
                passage = text[at : at + length].encode(encoding, "ignore").decode(encoding)
                body = passage.encode(encoding)
                if len(passage) > 0.97 * length and not (encoding not in WIDE and passage.isascii()):
                    found.append((language, encoding, passage, body))
    return found


def table() -> dict[tuple[str, str], list[str]]:
    """Returns the shares decoded right for each language and encoding, by length, for docs/formats.md."""
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for length in LENGTHS:
        shares: dict[tuple[str, str], list[bool]] = defaultdict(list)
        for language, encoding, passage, body in passages(length):
            name = encoding.rpartition("-")[0] if encoding in WIDE else encoding
            shares[language, name].append(decoded(body) == passage)
        for key, right in shares.items():
            rows[key].append(f"{sum(right) / len(right):.2f}")
    return rows


def decoded(body: bytes) -> str | None:
    try:
        return decode_text(body)
    except ExtractionError:
        return None


@pytest.mark.parametrize(("length", "right"), [(50, 0.96), (200, 0.99), (1000, 0.99)])
def test_the_encoding_of_a_text_is_found(length: int, right: float) -> None:
    found = [(decoded(body), passage, body) for _, _, passage, body in passages(length)]
    wrong = [(text, passage, body) for text, passage, body in found if text != passage]
    assert len(wrong) <= (1 - right) * len(found), [each[:2] for each in wrong]
    # What is wrong is in doubt, or a letter here and there; and few of the right ones are in doubt.
    silent = [text for text, passage, body in wrong if text and not decoding_doubt(body)]
    assert len(silent) <= 0.005 * len(found), silent
    doubted = sum(decoding_doubt(body) > 0.05 for text, passage, body in found if text == passage)
    assert doubted <= 0.08 * len(found)


@pytest.mark.parametrize(
    ("language", "encoding"), [(language, name) for language, names in ENCODINGS.items() for name in names]
)
def test_a_text_file_in_any_encoding_is_text(language: str, encoding: str) -> None:
    passage = TEXTS[language][:300]
    body = passage.encode(encoding, "ignore")
    for name in ("a.txt", "a"):
        assert detect_media_type(body, name).startswith("text/")
    beginning = normalize("NFC", body.decode(encoding)[:20].strip())
    assert extract_document(body, "text/plain").text.startswith(beginning)


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("encoding", WIDE)
def test_a_text_file_in_wide_characters_is_text(language: str, encoding: str) -> None:
    assert detect_media_type(TEXTS[language][:300].encode(encoding), "a.txt") == "text/plain"


def test_a_doubtful_decoding_is_not_fit_for_training_and_a_name_in_a_long_text_is_no_doubt() -> None:
    words = "Vermögen, Geburt".encode("cp1252")
    assert decoding_doubt(words) > 0.05
    found = extract_document(words, "text/plain")
    assert (
        quality_signals(found.text, found.end, found.decoding_doubt)["mojibake_ratio"] == found.decoding_doubt
    )
    assert decoding_doubt(b"The harbour opens at nine and closes at five. " * 9 + words) == 0
    assert decoding_doubt("Vermögen".encode()) == 0


@pytest.mark.parametrize("page", ["cp037", "cp500"])
def test_the_signs_of_both_mainframe_code_pages_are_read(page: str) -> None:
    text = "Read [the notes](notes.txt) before you write to the owner!\n====\nx ^ y, and {a} ~ $5\n"
    assert decode_text(text.encode(page)) == text


def test_a_foreign_name_in_an_english_text_is_in_windows_letters() -> None:
    text = "Copyright by the authors of the library, at the Universität of the town.\n" * 2
    assert decode_text(text.encode("cp1252")) == text
    quoted = "“Smart” quotes — and a €5 note, it’s said – in an English sentence…"
    assert decode_text(quoted.encode("cp1252")) == quoted
    assert decoding_doubt(quoted.encode("cp1252")) == 0


@pytest.mark.parametrize("encoding", ["cp1252", "iso8859_15"])
@pytest.mark.parametrize(
    "text",
    [
        *("Prix : 30 €. L’œuvre déjà vue à Nîmes", "Menu à 30 €", "Voilà l’été : à bientôt"),
        *("Où est le café ?", "Rendez-vous à 9 h, retour à 5 h", "Straße über Öl"),
    ],
)
def test_a_few_words_with_accents_are_in_latin_letters(text: str, encoding: str) -> None:
    body = text.encode(encoding, "ignore")
    assert decode_text(body) == body.decode(encoding)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *(("Menu и борщ", name) for name in ("cp1251", "koi8_r")),
        ("Microsoft Office для дома, Adobe Photoshop и Windows", "cp1251"),
        *(("Wi-Fi の設定", name) for name in ("cp932", "euc_jp")),
        *(("Menu カレー", "cp932"), ("電腦 Intel 處理器", "big5"), ("Windows 커널 설정", "cp949")),
    ],
)
def test_words_of_another_script_beside_latin_ones_stay_in_it(text: str, encoding: str) -> None:
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize("encoding", ["iso8859_2", "cp1250"])
def test_a_sentence_that_is_read_wrong_is_in_doubt(encoding: str) -> None:
    text = "Příliš žluťoučký kůň úpěl ďábelské ódy"
    body = text.encode(encoding)
    assert decode_text(body) == text or decoding_doubt(body) > 0.05


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1))
def test_valid_utf8_is_utf8(text: str) -> None:
    assert decode_text(text.encode()) == text.removeprefix("\ufeff")
    assert decoding_doubt(text.encode()) == 0


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_refused(body: bytes) -> None:
    assert decoded(body) is None or isinstance(decode_text(body), str)
    assert 0 <= decoding_doubt(body) <= 1
