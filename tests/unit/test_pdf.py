"""What a page looks like, and what is read: columns, running headers, words broken at a line's end."""

import pytest
from documents import make_drawn_pdf, make_pdf

from assets.parsing.extract import extract_document

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "it", "rains"]
BODY = ["Some lines of text", "that stand on each page", "one under the other."]
Placed = list[tuple[float, float, str]]


def text_of(body: bytes) -> str:
    return extract_document(body, "application/pdf").text


def body(title: str) -> Placed:
    return [(50, 700 - 14 * number, line) for number, line in enumerate([title, *BODY])]


def column(mark: str, rows: int, first: int) -> list[str]:
    return [f"{WORDS[(first + n) % 5]} {mark}{n} " + " ".join(WORDS[n % 5 : n % 5 + 3]) for n in range(rows)]


@pytest.mark.parametrize("places", [(50, 320), (20, 220, 420)])
def test_columns_drawn_line_by_line_across_are_read_one_after_the_other(places: tuple[float, ...]) -> None:
    columns = [column(f"mark{number}x", 14, number) for number in range(len(places))]
    texts: list[tuple[float, float, str]] = [
        (50, 780, "A heading that goes over " + "all of the columns " * 3)
    ]
    for row, cells in enumerate(zip(*columns, strict=True)):
        texts += [(x, 740 - 14 * row, cell) for x, cell in zip(places, cells, strict=True)]
    texts.append((295, 60, "7"))
    expected = "\n".join("\n".join(lines) for lines in columns)
    assert expected in text_of(make_drawn_pdf([texts])).replace("\n\n", "\n").replace("\n7\n", "\n")


def test_columns_drawn_one_after_the_other_stay_so() -> None:
    columns = [column("left", 14, 0), column("right", 14, 1)]
    texts = [
        (x, 740 - 14 * row, line)
        for x, lines in zip((50, 320), columns, strict=True)
        for row, line in enumerate(lines)
    ]
    assert text_of(make_drawn_pdf([texts])) == "\n\n".join("\n".join(lines) for lines in columns)


def test_the_cells_of_a_tables_row_stay_together() -> None:
    rows = [
        ("Widget with a long handle", "12 in stock and sold by weight"),
        ("Pear", "3"),
        ("The long name of another thing", "44 to be sent from the north"),
    ] * 6
    texts = [
        (x, 700 - 14 * n, cell) for n, row in enumerate(rows) for x, cell in zip((50, 320), row, strict=True)
    ]
    assert text_of(make_drawn_pdf([texts])) == "\n".join(map(" ".join, rows))


def test_running_headers_and_page_numbers_are_said_once() -> None:
    pages = [
        [(50, 780, "The Widget Book"), *body(name), (300, 40, str(number))]
        for number, name in enumerate(("One", "Two", "Three", "Four"), 11)
    ]
    said = text_of(make_drawn_pdf(pages))
    assert said == "The Widget Book\n\n" + "\n\n".join(
        "\n".join([name, *BODY]) + ("\n\n11" if name == "One" else "")
        for name in ("One", "Two", "Three", "Four")
    )


def test_left_and_right_pages_may_run_differently() -> None:
    pages = [
        [(50, 780, f"{number} The Book" if number % 2 else f"Of Widgets {number}"), *body(name)]
        for number, name in enumerate(("One", "Two", "Three", "Four"), 1)
    ]
    said = text_of(make_drawn_pdf(pages))
    assert [said.count(words) for words in ("The Book", "Of Widgets", "1 The", "Widgets 2")] == [1, 1, 1, 1]
    assert [said.count(words) for words in ("Four", BODY[1])] == [1, 4]


def test_what_only_looks_like_a_header_is_kept() -> None:
    # The head of a table with its rows right under it; a number that counts what the pages are about; values.
    tables = [[(50, 700, "Name Price")] + [(50, 686 - 14 * n, f"{p}{n} 5") for n in range(8)] for p in "ab"]
    assert text_of(make_drawn_pdf(tables)).count("Name Price") == 2
    questions = [[(50, 780, f"Question {number}"), *body(name)] for number, name in ((1, "Why"), (2, "How"))]
    assert "Question 1\n\nWhy" in text_of(make_drawn_pdf(questions))
    assert "Question 2\n\nHow" in text_of(make_drawn_pdf(questions))
    values = [[(50, 780, "10.5"), *body(name)] for name in ("Why", "How")]
    assert text_of(make_drawn_pdf(values)).count("10.5") == 2


def test_a_page_of_nothing_but_its_header_is_empty_and_keeps_the_count() -> None:
    found = extract_document(make_pdf([["Notes"], ["Notes"], ["Notes"]]), "application/pdf")
    assert (found.text, found.pages) == ("Notes", [0, 5, 5])


@pytest.mark.parametrize(
    ("elsewhere", "left", "right", "expected"),
    [
        ("", "dis", "covery", "discovery"),
        ("a carbon-free future", "carbon-", "free", "carbon-free"),
        ("the carbon is free", "carbon-", "free", "carbon-free"),
        ("information in the formation", "infor-", "mation", "information"),
        ("information in the formation", "in-", "formation", "information"),
        ("", "Lucene-", "BM25", "Lucene-BM25"),
        ("", "DEVELOP-", "MENT", "DEVELOPMENT"),
        ("", "Covid-", "19 rules", "Covid-19 rules"),
    ],
)
def test_a_word_broken_at_a_lines_end_is_joined_as_the_document_spells_it(
    elsewhere: str, left: str, right: str, expected: str
) -> None:
    left = left if left.endswith("-") else f"{left}-"
    texts = [
        (50, 700, f"Some words before it say {left}"),
        (50, 686, f"{right} and more"),
        (50, 672, elsewhere),
    ]
    assert f"say {expected} and more" in " ".join(text_of(make_drawn_pdf([texts])).split())
