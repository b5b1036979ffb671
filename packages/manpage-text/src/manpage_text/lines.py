"""Splits a page into text and macros with arguments; evaluates conditions, strings and definitions."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from manpage_text.characters import plain_text

_CONTROL = re.compile(
    r"[.'][ \t]*(?P<name>(?:if|ie|el)(?![a-zA-Z])|(?:\\[({\[|&]|[^\s\\])*)(?P<rest>.*)", re.DOTALL
)
_COMMENT = re.compile(r"(?:(?<!\\)|(?<=\\e))\\[\"#].*", re.DOTALL)
_COMMENT_LINE = re.compile(r"[.'][ \t]*(?:\\\"|\\#|\"|$)|\\\"|'''")
_CONDITION = re.compile(
    r"""[ \t]*(?P<not>!?)(?:
    (?P<mode>[note]) (?=[ \t\\]|$)
    | \( ? (?P<number>\\n(?:\(..|\[[^\]]*\]|[+-]?.)|-?\d+)\w? (?P<compared>(?:[<>=]=?)[\w\\(.\[\]]*)? \)?
    | [rdcFmS] [ \t]* (?P<known>[^\s\\]+)
    | (?P<quote>['"])(?P<left>.*?)(?P=quote)(?P<right>.*?)(?P=quote)
    | [^ \t\\]*
    )[ \t]*""",
    re.VERBOSE,
)
_ARGUMENT = re.compile(r'[ ]*(?:"((?:[^"]|"")*)"?|((?:\\.|[^ \\])+|\\$))', re.DOTALL)
_PARAMETER = re.compile(r"\\\\?\$(?:\(?(\d)\d?|[*@])|\\\\")
_DEFINITIONS = ("de", "de1", "am", "am1", "dei", "ami")
_MOST_STRINGS, _LONGEST_STRING = 1_000, 200
_MOST_EXPANDED_LINES = 20_000
_MOST_CONDITIONS = 20
"""Conditions in front of one request."""
_LONGEST_EXPANDED_LINE = 2_000
_MOST_ARGUMENTS = 2_000


@dataclass(frozen=True, slots=True)
class RoffLine:
    """A line of a manual page.

    Attributes:
        macro: The name of the macro or request; empty for text.
        arguments: The arguments without escapes; for text, the text alone.
        quoted: For each argument, whether it is quoted or starts with an escape, so that it names no macro.
    """

    macro: str
    arguments: tuple[str, ...]
    quoted: tuple[bool, ...] = ()

    @property
    def text(self) -> str:
        """The arguments as one text."""
        return " ".join(self.arguments)


class RoffReader:
    """Reads the lines of a page as groff does for a terminal.

    A macro that the page defines is expanded once, without the macros in its body, so a page grows by at most
    20,000 lines. Included files are not read.
    """

    def __init__(self, known_macros: frozenset[str]) -> None:
        """Ignores a page's own definitions of `known_macros`."""
        self._known = known_macros
        self._macros: dict[str, list[str]] = {}
        self._aliases: dict[str, str] = {}
        self._strings: dict[str, str] = {}
        self._expanded = 0

    def read(self, source: str) -> Iterator[RoffLine]:
        """Yields the lines of a page, in time linear in its length."""
        yield from self._read(_joined_lines(source), is_page=True)

    def _read(self, lines: Sequence[str], is_page: bool) -> Iterator[RoffLine]:
        place, otherwise = 0, [False]
        while place < len(lines):
            line = lines[place]
            place += 1
            if not line:
                yield RoffLine("", ("",))
            # What follows a true condition is read as a line of its own, without braces.
            for _ in range(_MOST_CONDITIONS):
                if not line:
                    break
                if line[0] not in ".'":
                    text = _COMMENT.sub("", line)
                    if text:
                        yield RoffLine("", (plain_text(text, self._strings),))
                    if text.endswith("\\c"):
                        yield RoffLine("\\c", ())
                    break
                if _COMMENT_LINE.match(line):
                    break
                found = _CONTROL.match(line)
                name, rest = (found["name"], found["rest"]) if found else ("", "")
                name = self._aliases.get(name, name)
                if name in ("if", "ie", "el"):
                    if name == "el":
                        holds = otherwise.pop() if otherwise else False
                    else:
                        condition = _CONDITION.match(rest)
                        holds = self._holds(condition)
                        rest = rest[condition.end() :] if condition else ""
                        if name == "ie":
                            otherwise.append(not holds)
                            del otherwise[:-100]
                    if not holds:
                        place = _after_block(rest, lines, place)
                        break
                    line = rest.replace("\\{", "").replace("\\}", "").lstrip(" \t")
                    continue
                if name == "while":
                    place = _after_block(rest, lines, place)
                    break
                if name in ("do", "nop"):
                    line = f".{rest.lstrip()}" if name == "do" else rest.lstrip()
                    continue
                if name in _DEFINITIONS or name == "ig":
                    place = self._define(name, _COMMENT.sub("", rest).split(), lines, place)
                    break
                yield from self._request(name, rest, is_page)
                break

    def _request(self, name: str, rest: str, is_page: bool) -> Iterator[RoffLine]:
        """Yields the lines of a macro or request."""
        if name.startswith("\\}") or not name:
            return
        if name in ("ds", "as", "ds1", "as1"):
            key, _, value = rest.strip().partition(" ")
            value = plain_text(_COMMENT.sub("", value).lstrip().removeprefix('"'), self._strings)
            if name.startswith("as"):
                value = self._strings.get(key, "") + value
            if len(self._strings) < _MOST_STRINGS:
                self._strings[key] = value[:_LONGEST_STRING]
            return
        if name == "als":
            new, _, old = rest.strip().partition(" ")
            if new not in self._known:
                self._aliases[new] = old.strip()
            return
        arguments, quoted = _arguments(rest)
        body = self._macros.get(name)
        if is_page and body is not None and self._expanded + len(body) <= _MOST_EXPANDED_LINES:
            self._expanded += max(len(body), 1)
            yield from self._read([_with_arguments(each, arguments) for each in body], is_page=False)
            return
        plain = tuple(plain_text(each, self._strings) for each in arguments)
        yield RoffLine(name, plain, quoted)
        if arguments and arguments[-1].endswith("\\c"):
            yield RoffLine("\\c", ())

    def _define(self, name: str, words: list[str], lines: Sequence[str], place: int) -> int:
        """Records a definition; returns the place after it."""
        ends = words[0:1] if name == "ig" else words[1:2]
        end = re.compile(rf"[.'][ \t]*{re.escape(ends[0] if ends else '.')}(?:\s|$)")
        last = next((each for each in range(place, len(lines)) if end.match(lines[each])), None)
        if last is None:
            return len(lines)
        if name in ("de", "de1") and words and words[0] not in self._known:
            self._macros[words[0]] = list(lines[place:last])
        return last + 1

    def _holds(self, found: "re.Match[str] | None") -> bool:
        """Whether a condition holds for groff on a terminal."""
        if found is None:
            return False
        if found["mode"]:
            holds = found["mode"] in "no"
        elif found["number"]:
            number = found["number"]
            value = 1 if number in (r"\n(.g", r"\n[.g]") else 0 if number.startswith("\\") else int(number)
            holds = value > 0 if not found["compared"] else found["compared"] in ("=0", "==0", "<1")
        elif found["known"]:
            holds = found["known"] in self._strings or found["known"] in self._macros
        elif found["quote"]:
            sides = (plain_text(found[side], self._strings) for side in ("left", "right"))
            holds = len(set(sides)) == 1
        else:
            holds = False
        return holds is not bool(found["not"])


def _joined_lines(source: str) -> list[str]:
    """The lines of a source; a backslash at the end of one joins the next."""
    lines: list[str] = []
    parts: list[str] = []
    for line in source.replace("\r\n", "\n").split("\n"):
        if line.endswith("\\{\\"):  # what follows the brace is a line of its own
            line = line[:-1]
        slashes = len(line) - len(line.rstrip("\\"))
        if slashes % 2 and not _COMMENT_LINE.match(line):
            parts.append(line[:-1])
            continue
        lines.append("".join([*parts, line]))
        parts = []
    return [*lines, *parts]


def _after_block(rest: str, lines: Sequence[str], place: int) -> int:
    """The place after the line, or the block in braces, that a condition guards."""
    depth = rest.count("\\{") - rest.count("\\}")
    while depth > 0 and place < len(lines):
        depth += lines[place].count("\\{") - lines[place].count("\\}")
        place += 1
    return place


def _arguments(rest: str) -> tuple[list[str], tuple[bool, ...]]:
    """The arguments of a macro, and which of them are quoted."""
    found: list[str] = []
    quoted: list[bool] = []
    for each in _ARGUMENT.finditer(_COMMENT.sub("", rest).strip().replace("\t", " ")):
        if len(found) == _MOST_ARGUMENTS:
            break
        is_quoted = each[1] is not None
        found.append(each[1].replace('""', '"') if is_quoted else each[2])
        quoted.append(is_quoted or found[-1].startswith("\\") or found[-1].endswith("\\&"))
    return found, tuple(quoted)


def _with_arguments(line: str, arguments: Sequence[str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found[0] == "\\\\":
            return "\\"
        if found[1] is None:
            return " ".join(f'"{each}"' if " " in each else each for each in arguments)
        number = int(found[1])
        return arguments[number - 1] if 1 <= number <= len(arguments) else ""

    return _PARAMETER.sub(value, line)[:_LONGEST_EXPANDED_LINE]
