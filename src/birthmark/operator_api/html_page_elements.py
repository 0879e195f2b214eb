"""Server-rendered pages: a card with a form. The only scripts are those named by their digest.

All external data is escaped, and a content security policy limits what a page loads and where its forms go.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from html import escape
from importlib.resources import files

from starlette.responses import HTMLResponse, RedirectResponse, Response

from birthmark.operator_api.cookie_request_guard import CSRF_FIELD

STYLE = """
:root{color-scheme:light dark;--paper:#fbfbf9;--card:#fff;--ink:#16202a;--soft:#56626e;--line:#e3e5e1;--edge:#8b959e;
--accent:#0b6e69;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#11161b;--card:#182027;--ink:#e6eaed;--soft:#9eaab4;--line:#2a343d;
--edge:#6d7983;--accent:#5fc4bd;--bad:#f08a82}}
*{box-sizing:border-box;margin:0}
body{background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,"Noto Sans",sans-serif;padding:48px 16px}
main{max-width:440px;margin:auto;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:24px}
h1{font-size:22px;font-weight:650;letter-spacing:-.01em;line-height:1.3;margin-bottom:16px}
.mark{display:flex;gap:8px;align-items:center;max-width:440px;margin:0 auto 16px;font-size:17px}
h2{font-size:15px;font-weight:600;margin-top:24px}
p,form,table{margin-top:12px}label{display:block;margin-top:12px;color:var(--soft);font-size:13px}
input{width:100%;padding:8px 10px;border:1px solid var(--edge);border-radius:8px;background:var(--card);color:inherit;
font:inherit}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:4px}
button{margin-top:16px;padding:8px 16px;border:1px solid var(--accent);border-radius:8px;background:var(--accent);
color:var(--card);font:inherit;font-size:14px;font-weight:600;cursor:pointer}
button+button{margin-left:8px}
button.other{background:transparent;color:var(--accent)}
.bad{color:var(--bad)}.note{color:var(--soft);font-size:13px}
table{width:100%;border-collapse:collapse;font-size:14px}td{padding:8px 8px 8px 0;border-top:1px solid var(--line)}
td form,td button{margin:0}td button{white-space:nowrap}
a{color:inherit;text-decoration-color:var(--edge);text-underline-offset:3px}code{font-family:ui-monospace,monospace}
"""
FROM_FRAGMENT = """
const code = location.hash.slice(1);
if (code) { document.getElementById("code").value = code; history.replaceState(null, "", location.pathname); }
"""
FROM_FRAGMENT_ON = f"{FROM_FRAGMENT}if (code) document.forms[0].submit();\n"
"""Script that reads a secret from the URL fragment and clears it.

Browsers send the fragment neither in requests nor in Referer.
"""


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_POLICY = (
    f"default-src 'none'; style-src {_digest(STYLE)}; script-src {_digest(FROM_FRAGMENT)} "
    f"{_digest(FROM_FRAGMENT_ON)}; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@cache
def _mark() -> str:
    return (
        files("birthmark.webconsole")
        .joinpath("files", "mark.svg")
        .read_text()
        .replace("<svg ", '<svg aria-hidden="true" ', 1)
    )


def page(title: str, *parts: str, status: int = 200, script: str = "", leads_to: str = "") -> Response:
    """Return a page of HTML parts; with `leads_to` it redirects by itself."""
    on = f'<meta http-equiv="refresh" content="0;url={escape(leads_to)}">' if leads_to else ""
    body = "".join(parts) + (f"<script>{script}</script>" if script else "")
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · Birthmark</title>'
        f'<meta name="viewport" content="width=device-width">{on}<style>{STYLE}</style></head>'
        f'<body><p class="mark">{_mark()} <b>Birthmark</b></p>'
        f"<main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
    return HTMLResponse(text, status, headers=HEADERS)


def see(path: str) -> Response:
    """Redirect a browser to another page of this server."""
    return RedirectResponse(path, 303, headers=HEADERS)


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph of plain text; text in backticks becomes a command."""
    more = ' role="alert"' if kind == "bad" else ""
    parts = (f"<code>{escape(one)}</code>" if place % 2 else escape(one) for place, one in enumerate(text.split("`")))
    return f'<p class="{escape(kind)}"{more}>{"".join(parts)}</p>' if text else ""


def link(path: str, text: str) -> str:
    """Return a link in its own paragraph."""
    return f'<p><a href="{escape(path)}">{escape(text)}</a></p>'


def hidden(name: str, value: str) -> str:
    """Return a hidden form field."""
    return f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'


def entry(name: str, label: str, *, kind: str = "text", fills: str = "off", value: str = "", limit: int = 1024) -> str:
    """Return a labeled input; `fills` is its autocomplete value."""
    return (
        f'<label for="{escape(name)}">{escape(label)}</label><input id="{escape(name)}" name="{escape(name)}" '
        f'type="{kind}" autocomplete="{fills}" value="{escape(value)}" maxlength="{limit}" required>'
    )


def button(text: str, *, action: str = "", name: str = "", value: str = "", is_other: bool = False) -> str:
    """Return a submit button; another `action` overrides the form's own and skips validation."""
    more = f' formaction="{escape(action)}" formnovalidate' if action else ""
    more += f' name="{escape(name)}" value="{escape(value)}"' if name else ""
    more += ' class="other"' if is_other else ""
    return f"<button{more}>{escape(text)}</button>"


def form(action: str, csrf: str, *parts: str) -> str:
    """Return an HTML form; the parts are HTML already."""
    return f'<form method="post" action="{escape(action)}">{hidden(CSRF_FIELD, csrf)}{"".join(parts)}</form>'


def rows(lines: Iterable[Sequence[str]]) -> str:
    """Return an HTML table; the cells are HTML already."""
    cells = ("".join(f"<td>{cell}</td>" for cell in line) for line in lines)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in cells)}</table>"
