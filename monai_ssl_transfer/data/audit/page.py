"""The report as one HTML page that opens offline and prints."""

from __future__ import annotations

import base64
import re
from html import escape

from monai_ssl_transfer import __version__
from monai_ssl_transfer.data.audit.catalogue import CHECKS
from monai_ssl_transfer.data.audit.findings import SEVERITIES, Finding, Picture
from monai_ssl_transfer.data.audit.page_style import STYLE
from monai_ssl_transfer.data.audit.pictures import thumbnails
from monai_ssl_transfer.data.audit.report import AuditReport

PICTURED = 12
"""Findings of a code that are shown with pictures; every one stands in the list."""
_OPEN = 8
_COLOURS = {"error": "#b3261e", "warning": "#8a5a00", "note": "#3a5a78"}


def audit_page(report: AuditReport) -> str:
    """The whole page.

    Args:
        report: the audit's.
    """
    by_code: dict[tuple[str, str], list[Finding]] = {}
    for one in report.findings:
        by_code.setdefault((one.code, one.severity), []).append(one)
    codes = list(CHECKS)
    keys = sorted(by_code, key=lambda key: (SEVERITIES.index(key[1]), codes.index(key[0])))
    name = escape(str(report.facts["data"]))
    sections = []
    for severity in SEVERITIES:
        own = [key for key in keys if key[1] == severity]
        if own:
            sections.append(f"<h2 id='{severity}'>{severity.capitalize()}s</h2>")
            sections += [_check(code, severity, by_code[code, severity]) for code, _ in own]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Audit of {name}</title><style>{STYLE}</style></head><body><h1>Audit of {name}</h1>"
        f"{_about(report)}{_verdict(report)}{_table(keys, by_code)}{''.join(sections)}{_nothing(by_code)}"
        f"<p class='quiet'>ssl-transfer {__version__}. What the audit cannot see is told in docs/audit.md.</p>"
        "</body></html>\n"
    )


def _about(report: AuditReport) -> str:
    facts = report.facts
    told = [str(facts["layout"]), f"{facts['images']} images", f"{facts['labels']} labels"]
    if facts["groups"]:
        told.append(f"{facts['groups']} groups (patients, sequences or videos)")
    parts = ", ".join(f"{part} {count}" for part, count in facts["parts"].items())
    told.append(f"parts: {parts}" if parts else "no split given, so nothing is compared across parts")
    if facts["against"]:
        told.append(f"against {facts['against']} ({facts['against_layout']}, {facts['against_images']} images)")
    return f"<p class='quiet'>{escape('; '.join(told))}</p>"


def _verdict(report: AuditReport) -> str:
    counts = report.counts()
    grave = [finding for finding in report.findings if finding.severity == "error"]
    leaks = [finding for finding in grave if CHECKS[finding.code].subject == "Leakage"]
    if leaks:
        says, worst = "Results on this split would be too good: the same images or patients lie on both sides.", "error"
        if all("both-sets" in one.code or one.code == "known-overlap" for one in leaks):
            says = "The two data sets share images: results of one after training on the other would be too good."
        elif all(one.code.startswith("split-") for one in leaks):
            says = "The split does not fit the data."
    elif grave:
        says, worst = "Some files must be mended or removed before these data are used.", "error"
    elif counts["warning"]:
        says, worst = "Nothing that must be mended; look at the warnings.", "warning"
    else:
        says, worst = "No error and no warning.", "note"
    numbers = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
    colour = _COLOURS[worst] if worst != "note" else "#2e6b34"
    return f"<p class='verdict' style='border-color:{colour}'><b>{escape(says)}</b><br>{numbers}.</p>"


def _table(keys: list[tuple[str, str]], by_code: dict[tuple[str, str], list[Finding]]) -> str:
    if not keys:
        return ""
    rows = "".join(
        f"<tr><td>{_tag(severity)}</td><td><a href='#{code}-{severity}'>{_with_code(CHECKS[code].meaning)}</a></td>"
        f"<td>{escape(CHECKS[code].subject)}</td><td class='n'>{len(by_code[code, severity])}</td></tr>"
        for code, severity in keys
    )
    return f"<table><tr><th></th><th>What</th><th>Where</th><th>Findings</th></tr>{rows}</table>"


def _tag(severity: str) -> str:
    return f"<span class='tag' style='background:{_COLOURS[severity]}'>{severity}</span>"


def _check(code: str, severity: str, found: list[Finding]) -> str:
    check = CHECKS[code]
    pictured = [one for one in found if one.pictures][:PICTURED]
    shown = "".join(map(_pictured, pictured))
    with_pictures = {id(one) for one in pictured}
    rest = [one for one in found if id(one) not in with_pictures]
    items = "".join(f"<li>{escape(one.sentence)}</li>" for one in rest)
    listed = f"<ul>{items}</ul>" if items else ""
    if len(rest) > _OPEN:
        listed = f"<details><summary>{len(rest)} {'more' if shown else 'findings'}</summary>{listed}</details>"
    return (
        f"<section class='check' id='{code}-{severity}'><h3>{_tag(severity)}{_capital(_with_code(check.meaning))} "
        f"<span class='quiet'>({len(found)})</span></h3>"
        f"<p class='remedy'><b>What to do:</b> {_with_code(check.remedy)}.</p>"
        f"{f'<div class=shown>{shown}</div>' if shown else ''}{listed}"
        f"<p class='quiet'><code>{code}</code></p></section>"
    )


def _with_code(text: str) -> str:
    """Escaped, with what stands between backquotes as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pictured(one: Finding) -> str:
    figures = "".join(map(_figure, one.pictures, thumbnails(one.pictures)))
    return f"<div class='finding'><p>{escape(one.sentence)}</p><div class='pair'>{figures}</div></div>"


def _figure(picture: Picture, jpeg: bytes | None) -> str:
    name = escape(picture.name)
    if jpeg is None:
        return f"<figure><figcaption>{name} (no picture)</figcaption></figure>"
    source = base64.b64encode(jpeg).decode()
    shown = f"<img alt='{name}' src='data:image/jpeg;base64,{source}'>"
    return f"<figure>{shown}<figcaption>{name}</figcaption></figure>"


def _nothing(by_code: dict[tuple[str, str], list[Finding]]) -> str:
    """What was looked for and not found, so that silence is not taken for not having looked."""
    met = {code for code, _ in by_code}
    clean = "".join(
        f"<li><code>{code}</code> {_with_code(check.meaning)}</li>" for code, check in CHECKS.items() if code not in met
    )
    summary = f"<summary>{len(CHECKS) - len(met)} checks</summary>"
    return f"<h2>Looked for and not found</h2><details>{summary}<ul>{clean}</ul></details>"
