"""The Jinja environment of every page: all text is escaped, a name that is missing is an error."""

from __future__ import annotations

from pathlib import Path

import jinja2

from pipeline.pages.axis import compact

HERE = Path(__file__).parent


def environment(folder: Path) -> jinja2.Environment:
    """Templates are looked up in `folder`, then beside this file: `page.css`, `panel.svg.j2`."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "signed": signed, "percent": percent, "sentence": sentence, "compact": compact}
    return found


def number(value: object, digits: int = 3) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        tiny = 0 < abs(value) < 0.5 * 10**-digits
        return f"{value:.1g}" if tiny else f"{value:.{digits}f}"
    return str(value)


def signed(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def sentence(text: str) -> str:
    """With a capital and a stop at the end; only the first letter is touched, for the rest may be names."""
    stop = "" if text.endswith((".", "?", "!")) else "."
    return text[:1].upper() + text[1:] + stop if text else ""
