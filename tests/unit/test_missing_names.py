"""What a question names that the passages do not, and what they name instead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.scoring.missing_names import absent_name, describe_missing, missing_names, title_names


@pytest.mark.parametrize(
    ("question", "text", "said"),
    [
        ("How fast is Kestrel-12?", "Kestrel-11 flies at 900 km/h.", "speak of Kestrel-11, not Kestrel-12"),
        ("How fast is the Kestrel 12?", "The Kestrel-12 flies.", None),
        ("How fast is kestrel-12?", "KESTREL 12 flies.", None),
        ("Who translated it into Basque?", "It is in French.", "no document found mentions Basque"),
        ("What did Jensen say in 1987?", "Jansen said so in 1988.", "speak of Jansen, not Jensen"),
        ("Where are the Foobar's files?", "Foobar keeps its files here.", None),
        ("What is it?", "Nothing.", None),
        ("The build fails. How do I fix it?", "Fix it so.", None),
        ("Which UnicodeDecodeErrors are caught?", "It catches a UnicodeDecodeError.", None),
        ("PlayStation ports?", "It runs on Windows.", "no document found mentions PlayStation"),
        (
            "What does exit code 17 mean?",
            "Exit code 1 is an error, of 17.5 s.",
            "speak of code 1, not code 17",
        ),
        ("What does exit code 17 mean?", "Codes: 1 an error, 17 a full disk. Exit code 2 is none.", None),
        ("Does it run on Python 3.12?", "It runs on Python 3.9 or later.", "mentions Python 3.12"),
        ("What happened in March 1987?", "In March 1988 it rained.", "mentions 1987"),
    ],
)
def test_what_was_found_instead_is_said(question: str, text: str, said: str | None) -> None:
    found = describe_missing(missing_names(question, [text]))
    assert found is None if said is None else said in (found or "")


def test_only_a_name_that_differs_in_its_number_alone_is_a_sibling() -> None:
    assert [each.is_sibling for each in missing_names("Is it Kestrel-12?", ["Kestrel-11 is."])] == [True]
    assert [each.is_sibling for each in missing_names("Did Jensen?", ["Jansen did."])] == [False]
    assert [each.is_sibling for each in missing_names("How fast is Kestrel 12?", ["Kestrel 11 is."])] == [
        True
    ]
    assert [each.is_sibling for each in missing_names("Which is exit code 17?", ["Exit code 1."])] == [True]
    assert [each.is_sibling for each in missing_names("Python 3.12?", ["Python 3.9 or later."])] == [False]
    assert [each.is_sibling for each in missing_names("Was it in 1987?", ["In 1988."])] == [False]


@pytest.mark.parametrize(
    ("question", "text", "absent"),
    [
        ("How do I move a Mercurial repository to Git?", "Git keeps it.", "Mercurial"),
        ("How do I install Conda?", "The secondary panda.", "Conda"),
        ("Who won the Battle of the Marne?", "It was a battle.", None),
        ("When was Assassin's Creed Valhalla sold?", "Valhalla came in 2020.", None),
        ("Does Postgres do it?", "PostgreSQL does it.", None),
        ("How fast is Kestrel-12?", "Kestrel-11 is fast.", None),
        ("Mercurial?", "Git.", None),
    ],
)
def test_a_name_of_which_no_word_is_held_is_absent(question: str, text: str, absent: str | None) -> None:
    assert absent_name(question, [text]) == absent


def test_titles_name_a_subject_in_lower_case_and_common_words_are_no_names() -> None:
    titles, texts = ["numfmt(1)", "Sorting with sort", None], ["It rounds.", "It sorts.", "Start with it."]
    assert title_names("Which method does numfmt use with that?", titles, texts) == {"numfmt", "with"}
    texts[0] = "It rounds with care."
    assert title_names("Which method does numfmt use with that?", titles, texts) == {"numfmt"}
    assert title_names("Which?", [None], ["Which."]) == set()


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=4))
def test_what_the_texts_hold_is_not_missing(question: str, texts: list[str]) -> None:
    assert missing_names(question, [*texts, question]) == []
    assert absent_name(question, [*texts, question]) is None
    missing_names(question, texts)
