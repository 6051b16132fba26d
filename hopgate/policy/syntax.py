"""Cedar text cut into single policies, with positions: cedarpy's messages carry none.

The cutting knows only Cedar's tokens (strings, comments, and the semicolon that ends a policy and occurs nowhere else
outside of a string). Whether it was right is not taken on trust: Cedar reads each piece, and counts the policies of the whole.

Cedar's parser recurses, and cedarpy 4.12 ends the whole process by a stack overflow on deeply nested text: what nests too
deep, or hides its direction of reading, is refused here, before Cedar sees it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hopgate.policy.errors import CedarSyntaxError

_TOKEN = re.compile(
    r"""(?P<blank>\s+|//[^\r\n]*)|"(?:\\.|[^"\\])*"|[A-Za-z_][A-Za-z0-9_]*|[0-9]+|::|==|!=|<=|>=|&&|\|\||.""",
    re.DOTALL,
)
# With a stack of 8 MB Cedar fell over at 635 nested brackets and at 1,332 chained operators; cedarpy's own limit is 100 levels.
MAX_BRACKETS: Final = 50
MAX_OPERATORS: Final = 300
_OPERATORS: Final = frozenset({"&&", "||", "!", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", ".", "if", "has", "like", "in", "is", "["})
# Marks that make text read otherwise than it is written (Unicode 16, UAX 9): left-to-right mark to isolates.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_UNFINISHED: Final = "unexpected end of input"
_QUOTED = re.compile(r"`([^`]+)`")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in a policy's text: line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token and where it starts and ends, in characters from the piece's start."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The text of one policy, from its first token to its semicolon, and where it starts in the whole text."""

    text: str
    start: Position
    tokens: tuple[Token, ...]

    def position(self, offset: int) -> Position:
        """Where the character at `offset` of the piece is in the whole text."""
        before = self.text[:offset]
        lines = before.count("\n")
        if lines == 0:
            return Position(line=self.start.line, column=self.start.column + offset)
        return Position(line=self.start.line + lines, column=offset - before.rindex("\n"))


def cut(text: str) -> list[Piece]:
    """The single policies of `text`; the last one may lack its semicolon. Raises nothing."""
    pieces: list[Piece] = []
    waiting: list[tuple[str, int, int]] = []
    line, line_start, counted = 1, 0, 0
    for match in _TOKEN.finditer(text):
        if match["blank"] is not None:
            continue
        if not waiting:
            line += text.count("\n", counted, match.start())
            line_start, counted = text.rfind("\n", 0, match.start()) + 1, match.start()
        waiting.append((match[0], match.start(), match.end()))
        if match[0] == ";":
            pieces.append(_piece(text, waiting, Position(line=line, column=waiting[0][1] - line_start + 1)))
            waiting = []
    if waiting:
        pieces.append(_piece(text, waiting, Position(line=line, column=waiting[0][1] - line_start + 1)))
    return pieces


def _piece(text: str, found: list[tuple[str, int, int]], start: Position) -> Piece:
    begin, end = found[0][1], found[-1][2]
    tokens = tuple(Token(text=token, start=first - begin, end=last - begin) for token, first, last in found)
    return Piece(text=text[begin:end], start=start, tokens=tokens)


def find_danger(piece: Piece) -> tuple[str, Position] | None:
    """Why this piece must not be given to Cedar, and where; None where it may."""
    mark = _BIDI.search(piece.text)
    if mark is not None:
        return f"character U+{ord(mark[0]):04X} changes the direction of reading: leave it out, or write it as an escape", piece.position(
            mark.start()
        )
    depth = operators = 0
    for token in piece.tokens:
        operators += token.text in _OPERATORS
        if token.text in {"(", "[", "{"}:
            depth += 1
        elif token.text in {")", "]", "}"}:
            depth = max(depth - 1, 0)
            if depth == 0 and token.text == "}":
                operators = 0
        if depth > MAX_BRACKETS:
            return f"expected at most {MAX_BRACKETS} nested brackets", piece.position(token.start)
        if operators > MAX_OPERATORS:
            advice = "write several rules, or one comparison with a set"
            return f"expected at most {MAX_OPERATORS} operators in one condition: {advice}", piece.position(token.start)
    return None


def locate_syntax(piece: Piece, message: str, read: Callable[[str], object]) -> Position:
    """Where Cedar stopped understanding: the first token after which the text is no longer merely unfinished.

    `read` raises CedarSyntaxError for text that is not a policy. Mistakes that Cedar finds only in the finished policy are looked for
    by the word that the message quotes.
    """
    if message == _UNFINISHED:
        return piece.position(piece.tokens[-1].end)
    low, high = 1, len(piece.tokens)
    while low < high:
        middle = (low + high) // 2
        if _is_unfinished(piece.text[: piece.tokens[middle - 1].end], read):
            low = middle + 1
        else:
            high = middle
    if low < len(piece.tokens):
        return piece.position(piece.tokens[low - 1].start)
    return locate_quoted(piece, message)


def _is_unfinished(text: str, read: Callable[[str], object]) -> bool:
    try:
        read(text)
    except CedarSyntaxError as mistake:
        return str(mistake) == _UNFINISHED
    return False


def locate_quoted(piece: Piece, message: str) -> Position:
    """Where the piece has what `message` speaks of: its quoted words (a dotted path by its last), else its own last words."""
    quoted = _QUOTED.findall(message)
    for phrase in quoted:
        words = _WORD.findall(phrase)
        for token in piece.tokens:
            if token.text in {phrase, f'"{phrase}"'} or (words and token.text in {words[-1], f'"{words[-1]}"'}):
                return piece.position(token.start)
    last = message.rpartition(" ")[2]
    for token in piece.tokens:
        if token.text == last:
            return piece.position(token.start)
    return piece.start
