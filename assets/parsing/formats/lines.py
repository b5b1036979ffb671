"""How lists and table rows become lines of text, the same in every format."""

from collections.abc import Iterable


def format_list(items: Iterable[str], first: int | None = None) -> str:
    """Returns list items as lines, each with a bullet or number; continuation lines are indented.

    Args:
        items: The text of each item.
        first: The first number of an ordered list; None for bullets.
    """
    lines = []
    for number, item in enumerate(items, first or 0):
        marker = "- " if first is None else f"{number}. "
        body = item.strip("\n").replace("\n", "\n" + " " * len(marker))
        if body.strip():
            lines.append(marker + body)
    return "\n".join(lines)


def format_table_row(cells: Iterable[str]) -> str:
    """Returns a table row as one line with ` | ` between cells; a single non-empty cell stands alone."""
    texts = [" ".join(cell.split()) for cell in cells]
    if sum(map(bool, texts)) == 1:  # a caption, or a table that only lays out a page
        return "".join(texts)
    while texts and not texts[-1]:
        texts.pop()
    return " | ".join(texts)
