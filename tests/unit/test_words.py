"""Words, and the language, of texts in many scripts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.word_evidence import compare_by_words
from retrieval.embedding.config import packaged_embedding_model
from retrieval.embedding.model_folder import read_model_folder
from retrieval.embedding.tokenization import has_words_of, load_text_tokenizer
from retrieval.language.identification import detect_language, in_language_of
from retrieval.language.words import count_words, split_words, word_starts

RIGHTS = {
    "en": "Everyone has the right to education. Education shall be free, at least in the elementary stages.",
    "de": "Jeder hat das Recht auf Bildung. Die Bildung ist unentgeltlich, mindestens am Anfang.",
    "fr": "Toute personne a droit à l'éducation. L'éducation doit être gratuite, au moins au début.",
    "zh": "人人都有受教育的权利，教育应当免费，至少在初级和基本阶段应如此。",
    "ja": "すべて人は、教育を受ける権利を有する。教育は、少なくとも初等の段階では、無償でなければならない。",
    "th": "ทุกคนมีสิทธิในการศึกษา การศึกษาจะต้องให้เปล่าอย่างน้อยในขั้นประถมศึกษาและขั้นพื้นฐาน",
    "ko": "모든 사람은 교육을 받을 권리를 가진다. 교육은 최소한 초등 및 기초단계에서는 무상이어야 한다.",
    "ar": "لكل شخص الحق في التعلم. ويجب أن يكون التعليم في مراحله الأولى والأساسية على الأقل بالمجان.",
    "he": "כל אדם זכאי לחינוך. החינוך ינתן חינם, לפחות בשלבים הראשונים והיסודיים.",
    "hi": "प्रत्येक व्यक्ति को शिक्षा का अधिकार है। शिक्षा कम से कम प्रारम्भिक अवस्थाओं में निःशुल्क होगी।",
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The quick, brown-fox: 3.11!", ["The", "quick", "brown", "fox", "3.11"]),
        ("人人都有受教育的权利。", ["人人", "都有", "受", "教育", "的", "权利"]),
        ("教育を受ける権利", ["教育", "を", "受ける", "権利"]),
        ("สิทธิในการศึกษา", ["สิทธิ", "ใน", "การ", "ศึกษา"]),
        ("교육을 받을 권리", ["교육을", "받을", "권리"]),
        ("🙂 … —", []),
        ("", []),
    ],
)
def test_words_are_found_in_every_script(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@pytest.mark.parametrize(("language", "least", "most"), [("en", 16, 16), ("zh", 12, 25), ("th", 12, 25)])
def test_a_sentence_has_as_many_words_with_and_without_spaces(language: str, least: int, most: int) -> None:
    assert least <= count_words(RIGHTS[language]) <= most


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_words_start_where_the_words_of_the_text_do(text: str) -> None:
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    starts = word_starts(codes)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    ends = [*starts[1:], len(text)]
    segments = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    assert [each for each in segments if any(map(str.isalnum, each))] == split_words(text)


@pytest.mark.parametrize("language", sorted(RIGHTS))
def test_a_text_is_in_the_language_of_a_question_in_it(language: str) -> None:
    texts = list(RIGHTS.values())
    question = RIGHTS[language][:40]
    assert [code for code, same in zip(RIGHTS, in_language_of(question, texts), strict=True) if same] == [
        language
    ]
    assert detect_language(RIGHTS[language]) == language


def test_where_there_is_no_choice_of_languages_every_text_is_taken() -> None:
    assert in_language_of("Qui a droit à l'éducation ?", [RIGHTS["de"], RIGHTS["de"], "1"]) == [True] * 3
    assert in_language_of("??", [RIGHTS["de"], RIGHTS["fr"]]) == [True, True]
    assert in_language_of("Anything", []) == []


@pytest.mark.parametrize("language", sorted(RIGHTS))
def test_the_default_model_has_the_words_of_languages_in_latin_letters(language: str) -> None:
    tokenizer = load_text_tokenizer(read_model_folder(packaged_embedding_model()))
    assert has_words_of(tokenizer, RIGHTS[language]) == (language in {"en", "de", "fr"})
    assert has_words_of(tokenizer, RIGHTS["en"] * 200)  # cut off where the model ceases to read
    assert has_words_of(tokenizer, "3.11?")


def test_a_sentence_with_the_rare_words_of_a_question_comes_first() -> None:
    sentences = ["任何人不得加以酷刑。", "人人有权享有国籍。", "任何人的财产不得任意剥夺。"]
    shares, vectors = compare_by_words("财产可以被任意剥夺吗？", sentences)
    assert shares.argmax() == 2
    assert shares[2] > 0.4 > 0.2 > shares[:2].max()
    similar = vectors @ vectors.T
    assert np.allclose(np.diag(similar), 1.0)
    assert similar[0, 1] < 0.5
    assert compare_by_words("财产", ["…"]).shares.tolist() == [0.0]
