"""Pages from templates that escape everything, and the policies with which they are sent."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt

from refit_review import chart

FOLDER = Path(__file__).parent
_ACTIVE = ["link", "image", "autolink", "html_inline", "html_block", "reference"]
_ALWAYS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
# Our own pages: a script and a style sheet of ours, reports in a frame, calls to Airflow.
OURS = _ALWAYS | {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
}
# Pages of runs, with labels and names of files in them. No script, no form, no request; the session's cookie is
# readable by scripts, so none may run. The origin stays Airflow's, else a link from page to page would go without
# the cookie (SameSite=Lax) and end at the login.
THEIRS = _ALWAYS | {
    "Content-Security-Policy": "sandbox allow-same-origin; default-src 'none'; script-src 'none'; "
    "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
}


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"figure": chart.words, "time": time}
    return found


def page(template: str, *, status: int = 200, **content: Any) -> HTMLResponse:
    return HTMLResponse(_environment().get_template(template).render(content), status, headers=OURS)


def message(title: str, text: str, base: str, *, status: int) -> HTMLResponse:
    return page("message.html.j2", status=status, title=title, text=text, base=base)


def content(path: Path, kind: str) -> FileResponse:
    return FileResponse(path, media_type=f"{kind}; charset=utf-8", headers=THEIRS)


def markdown(text: str) -> HTMLResponse:
    """A card: Markdown without HTML, links and pictures, as a page of a run."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable(_ACTIVE)
    return HTMLResponse(_environment().get_template("card.html.j2").render(body=parser.render(text)), headers=THEIRS)


def time(iso: Any) -> str:
    """To the minute; all times are UTC."""
    return f"{str(iso)[:16].replace('T', ' ')} UTC" if iso else ""
