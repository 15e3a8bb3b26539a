"""Makes untrusted text, such as names of classes and files, safe for a terminal and for Markdown."""

from __future__ import annotations


def clean(text: str) -> str:
    """Replaces control characters: the name of a class or a file must not control the terminal."""
    return "".join(character if character.isprintable() or character == "\u00a0" else "\ufffd" for character in text)


def escape_markdown(text: object) -> str:
    """Escapes a text for one line of Markdown: Markdown syntax, HTML and control characters."""
    return "".join(f"\\{each}" if each in "\\`*_{}[]<>#|&~" else each for each in clean(str(text)))
