"""Data Docs that open without a network.

Great Expectations writes pages that load Bootstrap, jQuery and others from content delivery networks, and an
index that is empty without them. A plant's computer has no such network: here the foreign references go, a
short style takes their place, and the index says what was found. Nor does it escape every value that it
shows: a file's name must not become markup.
"""

import re
import shutil
from html import escape
from pathlib import Path

import pandas as pd

from novad.images.report import Finding, GateReport

__all__ = ["make_offline", "without_markup"]

# Letters of Linear A, which nobody writes and repr() leaves alone, in place of markup while a page is made.
_PLACEHOLDERS = {sign: chr(0x10600 + number) for number, sign in enumerate("<>&\"'")}
_HIDDEN = str.maketrans(_PLACEHOLDERS)
_SHOWN = str.maketrans({placeholder: escape(sign) for sign, placeholder in _PLACEHOLDERS.items()})

_HEAD = """<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<style>
body{font-family:system-ui,sans-serif;margin:0 auto;max-width:76rem;padding:1rem;color:#222}
.row{display:flex;flex-wrap:wrap;gap:1rem}.container-fluid,.col-12{width:100%}
table{border-collapse:collapse;margin:.5rem 0;max-width:100%}
td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top}
.alert{padding:.6rem 1rem;border:1px solid #ccc;border-radius:.3rem}
.badge{padding:.1rem .4rem;border-radius:.3rem;background:#eee}
.text-success,.passed{color:#137333}.text-danger,.error{color:#b3261e}.text-warning,.warning{color:#a56300}
.nav,.breadcrumb{display:flex;flex-wrap:wrap;gap:.4rem;list-style:none;padding:0}
.modal,.navbar-brand,.breadcrumb,button,form,footer,nav{display:none}
</style>"""

_FOREIGN = re.compile(
    r"<script\b[^>]*>.*?</script>|<link\b[^>]*>|<img\b[^>]*>|<iframe\b.*?</iframe>|<footer\b.*?</footer>"
    r"|@import[^;]*;|url\((['\"]?)https?:[^)]*\)",
    re.IGNORECASE | re.DOTALL,
)
# Links between the pages would break, as they move; those inside a page stay.
_LINK = re.compile(r"<a\b[^>]*href=\"[^#][^\"]*\"[^>]*>(.*?)</a>", re.IGNORECASE | re.DOTALL)


def without_markup(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` without markup in its texts; :func:`make_offline` shows them as they were."""
    texts = frame.select_dtypes(include=["object", "string"])
    hidden = texts.map(lambda value: value.translate(_HIDDEN) if isinstance(value, str) else value)
    return frame.assign(**hidden)


def make_offline(docs: Path, report: GateReport) -> None:
    """Turn what Great Expectations built in ``docs`` into three pages that need nothing but themselves.

    ``index.html`` is the summary, ``validation.html`` the result of every expectation, ``suite.html`` the
    expectations.
    """
    pages = {
        "validation.html": docs.glob("validations/**/*.html"),
        "suite.html": docs.glob("expectations/*.html"),
    }
    texts = {name: _self_contained(next(found).read_text("utf-8")) for name, found in pages.items()}
    shutil.rmtree(docs)
    docs.mkdir()
    for name, text in texts.items():
        (docs / name).write_text(text, "utf-8")
    (docs / "index.html").write_text(_index(report), "utf-8")


def _self_contained(page: str) -> str:
    own = _LINK.sub(r"\1", _FOREIGN.sub("", page)).replace("</head>", f"{_HEAD}</head>", 1)
    return own.translate(_SHOWN)


def _index(report: GateReport) -> str:
    verdict = "passed" if report.passed else "error"
    counts = "".join(
        f"<tr><th>{escape(name)}</th><td>{count}</td></tr>" for name, count in report.counts.items()
    )
    findings = "".join(_row(finding) for finding in report.findings)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Data gate</title>{_HEAD}</head>'
        f'<body><h1>Data gate: <span class="{verdict}">{"passed" if report.passed else "refused"}</span></h1>'
        f"<p>{len(report.checks)} checks, {len(report.errors)} errors, {len(report.warnings)} warnings. "
        '<a href="validation.html">Every result</a>, <a href="suite.html">every expectation</a>.</p>'
        f"<table>{counts}</table><table><tr><th>severity</th><th>check</th><th>what</th><th>images</th></tr>"
        f"{findings}</table></body></html>\n"
    )


def _row(finding: Finding) -> str:
    images = "<br>".join(escape(image) for image in finding.images)
    return (
        f'<tr><td class="{finding.severity}">{finding.severity}</td><td>{escape(finding.check)}</td>'
        f"<td>{escape(finding.message)}</td><td>{images}</td></tr>"
    )
