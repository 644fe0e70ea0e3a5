"""Names from outside on a terminal: a file's name must not steer it."""

from __future__ import annotations

from rich.markup import escape


def shown(text: str) -> str:
    """For rich, which reads markup."""
    return escape(plain(text))


def plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
