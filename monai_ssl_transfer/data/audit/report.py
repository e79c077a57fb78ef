"""The outcome of an audit: JSON, a summary for the terminal, and the exit code."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ssl_transfer.data.audit.catalogue import CHECKS
from monai_ssl_transfer.data.audit.findings import SEVERITIES, Finding
from monai_ssl_transfer.durable import write_durably

JSON_NAME, PAGE_NAME = "audit.json", "audit.html"
VERSION = 1
_LINES = 5


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Args:
        facts: what was audited: layout, numbers of images, labels and groups, parts of the split.
        findings: the worst first.
    """

    facts: dict[str, Any]
    findings: list[Finding]

    def counts(self) -> dict[str, int]:
        """Findings by severity."""
        found = Counter(one.severity for one in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def exit_code(self, fail_on: str = "error") -> int:
        """1 if there is a finding of this severity or a worse one, else 0.

        Args:
            fail_on: one of `SEVERITIES`.
        """
        grave = SEVERITIES[: SEVERITIES.index(fail_on) + 1]
        return int(any(one.severity in grave for one in self.findings))

    def to_json(self) -> str:
        """Everything but the pictures."""
        content = {
            "version": VERSION,
            **self.facts,
            "counts": self.counts(),
            "findings": [
                {
                    "severity": one.severity,
                    "code": one.code,
                    "subject": CHECKS[one.code].subject,
                    "sentence": one.sentence,
                    "files": list(one.files),
                    "remedy": one.remedy,
                }
                for one in self.findings
            ],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def summary(self) -> str:
        """For a terminal: what was audited, and per code a few of the findings with the remedy."""
        by_code: dict[tuple[str, str], list[Finding]] = {}
        for one in self.findings:
            by_code.setdefault((one.severity, one.code), []).append(one)
        lines = [self.headline()]
        for (severity, code), found in by_code.items():
            lines.append(f"{severity} {code} ({len(found)}): {CHECKS[code].meaning}")
            lines += [f"    {one.sentence}" for one in found[:_LINES]]
            if len(found) > _LINES:
                lines.append(f"    ... and {len(found) - _LINES} more")
            lines.append(f"    -> {CHECKS[code].remedy}")
        return "\n".join(lines)

    def headline(self) -> str:
        """One line: what was audited and how much was found."""
        counts = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in self.counts().items())
        return f"{self.facts['data']} ({self.facts['layout']}; {self.facts['images']} images): {counts}"

    def write(self, folder: str | Path) -> Path:
        """Write ``audit.json`` and ``audit.html``.

        Args:
            folder: made if it does not exist.

        Returns:
            The page.
        """
        from monai_ssl_transfer.data.audit.page import audit_page

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        write_durably(place / JSON_NAME, lambda stream: stream.write(self.to_json().encode()))
        write_durably(place / PAGE_NAME, lambda stream: stream.write(audit_page(self).encode()))
        return place / PAGE_NAME
