"""The type of answer that a question asks for, and the names that it holds, in texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.scoring.answer_type import holds_asked_type
from inference.scoring.missing_names import share_of_names


@pytest.mark.parametrize(
    ("question", "holds", "lacks"),
    [
        ("When was the bridge opened?", "It was opened in 1932.", "It was opened by the king."),
        ("In which year did the Kestrel 1932 fly?", "It flew in 1940.", "The Kestrel 1932 flew."),
        ("How many bytes does it keep?", "It keeps twenty million of them.", "It keeps some of them."),
        ("On which port does it listen?", "It listens on 8080.", "It listens on a port of its own."),
        ("Which option keeps the file?", "-k --keep Keeps the input.", "Keeps the file as it is."),
        ("Which option accepts tunnels?", "Set PermitTunnel to yes.", "Tunnels are accepted."),
        ("Who built the bridge?", "It was built by Bradfield.", "It was built by the state."),
        ("Where does the Danube rise?", "It rises in the Black Forest.", "The Danube rises far away."),
    ],
)
def test_a_text_holds_the_type_that_is_asked_for(question: str, holds: str, lacks: str) -> None:
    assert holds_asked_type(question, [holds, lacks]).tolist() == [True, False]


def test_no_text_holds_a_type_that_no_pattern_knows() -> None:
    assert not holds_asked_type("Why is the sky blue?", ["Rayleigh said so in 1871."]).any()


def test_the_share_of_names_is_of_those_that_any_text_holds() -> None:
    texts = ["The Oncomine Dx test is made by Thermo.", "The oncomine test.", "A test.", "Zorro of Dx"]
    shares = share_of_names("Which company makes the Oncomine Dx Target of Nobody-7?", texts)
    assert shares.tolist() == [1.0, 0.5, 0.0, 0.5]
    assert share_of_names("Why is it so?", texts).tolist() == [0.0] * 4


@given(st.text(max_size=80), st.lists(st.text(max_size=80), max_size=4))
def test_any_text_has_a_type_or_not_and_a_share_of_names(question: str, texts: list[str]) -> None:
    assert holds_asked_type(question, texts).shape == (len(texts),)
    shares = share_of_names(question, [*texts, question])
    assert ((shares >= 0) & (shares <= 1)).all()
    # The question itself has all of its names.
    assert shares[-1] in (0.0, 1.0)
    assert not holds_asked_type(question, [question]).any()
