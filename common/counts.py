"""How many of a thing there are, in words."""


def counted(count: float, noun: str, plural: str | None = None) -> str:
    """Returns a number with its noun: `1 document`, `1,204 documents`.

    Args:
        count: How many there are.
        noun: What one of them is called.
        plural: What several are called; None for the noun and an s.
    """
    return f"{count:,.0f} {noun if count == 1 else plural or f'{noun}s'}"
