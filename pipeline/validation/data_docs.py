"""Great Expectations' pages made to stand alone.

As written they fetch a dozen scripts and style sheets from the web. Here they get one small style sheet of their
own and lose the scripts (filters, folding), so that they show the same on a machine without a network and in a
sandboxed frame. The index, which is drawn by script, becomes a plain list of the pages.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

_NEEDS_THE_WEB = re.compile(
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<footer\b.*?</footer>|@font-face\s*{.*?}", re.DOTALL
)
_REMOTE_IMAGE = re.compile(r"url\([^)]*\)")
# Great Expectations does not escape values, so a label may carry markup; it must not act.
_HEAD = """<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: #222; }
a { color: #0b5cad; }
nav, .card, .sticky, .show-scrollbars { position: static !important; height: auto !important; }
.ge-navigation-sidebar-content, .nav { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
.card:has(input) { display: none; }
.alert { background: #eef2f6; border-left: 4px solid #8aa4bd; padding: .5rem .75rem; margin: 1.5rem 0 .5rem; }
h1, h2, h3, h4, h5, h6 { margin: .25rem 0; }
table { border-collapse: collapse; margin: .5rem 0; }
td, th { border-top: 1px solid #dde3e9; padding: .35rem .6rem; text-align: left; vertical-align: top; }
.fa-times::before, .fa-exclamation-triangle::before { content: "\\2718"; }
.fa-check-circle::before, .fa-check::before { content: "\\2714"; }
.text-danger { color: #b3261e; } .text-success { color: #1b7f3b; } .text-warning { color: #a65f00; }
.badge { background: #eef2f6; border-radius: 3px; padding: 0 .3rem; }
.collapse:not(:target), .cooltip .top { display: none; }
</style>
"""


TITLES = {"validations": "Results", "expectations": "Rules"}


def publish(site: Path, target: Path) -> None:
    """Copy the pages of `site` to `target`, self-contained, with an index."""
    names = sorted(path.relative_to(site) for path in site.rglob("*.html") if path.name != "index.html")
    for name in names:
        page = target / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(self_contained((site / name).read_text()))
    (target / "index.html").write_text(_index(names))


def self_contained(page: str) -> str:
    """`page` without anything that a browser would fetch or run."""
    local = _REMOTE_IMAGE.sub("none", _NEEDS_THE_WEB.sub("", page))
    return local.replace("</head>", f"{_HEAD}</head>", 1)


def _index(names: list[Path]) -> str:
    # Results before the suite that they are about.
    links = "".join(
        f'<li><a href="{html.escape(name.as_posix())}">{TITLES[name.parts[0]]}: {html.escape(_table(name))}</a></li>\n'
        for name in reversed(names)
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Row rules</title>{_HEAD}</head>\n'
        f"<body><h1>Row rules</h1>\n<ul>\n{links}</ul>\n</body></html>\n"
    )


def _table(name: Path) -> str:
    """`images` of expectations/images.html and of validations/images/<run>/<time>/<batch>.html."""
    return name.with_suffix("").parts[1]
