"""Whether the text of a licence plainly lets others hand something on; what is not recognised does not."""

from __future__ import annotations

import re

from monai_ssl_transfer.engines.pretraining.export import FURTHER, LICENCE
from monai_ssl_transfer.weights.published.terms import TERMS

_VERSION = r"(?:[ ,-]*(?:version |v)?\d(?:\.\d)?)?"
_END = r"(?:[ -]licen[cs]e)?"
_PERMISSIVE = re.compile(
    "|".join(
        (
            rf"apache(?: software)?{_END}{_VERSION}{_END}",
            rf"(?:mit|isc|zlib|unlicense){_END}",
            rf"(?:new |modified |simplified |revised )?(?:[023]-clause )?bsd(?:[ -][0234](?:[ -]clause)?)?{_END}",
            rf"(?:cc|creative commons)[ -]?(?:0|zero){_VERSION}(?: universal)?{_END}",
            rf"cc[ -]by(?:[ -]sa)?{_VERSION}(?: international)?{_END}",
            rf"creative commons attribution(?:[ -]share-?alike)?{_VERSION}(?: international)?{_END}",
            r"https?://creativecommons\.org/(?:licenses/by(?:-sa)?|publicdomain/zero)/\d\.\d/?(?:deed\.\w+)?",
            r"https?://(?:www\.)?apache\.org/licenses/license-2\.0(?:\.txt|\.html)?",
            r"https?://opensource\.org/licen[cs]es?/(?:mit|apache-2\.0|bsd-[23]-clause)/?",
            r"(?:in the )?public domain",
            r"(?:both )?commercial and non-?commercial use (?:is |are )?(?:both )?(?:permitted|allowed)",
            r"(?:my|our|the exporter's)?\s*own data",
        )
    ),
    re.IGNORECASE,
)
_WHAT = re.compile(r"^(?:the )?(?:(?:code|weights|model|data|licen[cs]e)(?: and |, | )?)+:\s*", re.IGNORECASE)
_OF_WHAT = re.compile(r"\s*\((?:code|weights|model weights|model|data| and |, )+\)", re.IGNORECASE)
_JOINED = re.compile(r"\s*;\s*|\s+and\s+|\s+or\s+", re.IGNORECASE)
_SHOWN = 60


def restriction(licence: str) -> str:
    """Why a licence may not simply be passed on.

    A text that is nobody's known permissive licence is never guessed at: usual words of a prohibition have too many
    forms ("for research purposes only", "all rights reserved", "internal use").

    Args:
        licence: its text; "" if unknown.

    Returns:
        "" for one that is known to permit it, and for an unknown one.
    """
    text = re.sub(r"\s+", " ", licence or "").strip(" .")
    while text.startswith(LICENCE):  # an own encoder's: what it began with follows
        text = text.removeprefix(LICENCE).removeprefix(FURTHER).strip()
    if not text or _judged_before(text) or _permits(text):
        return ""
    shown = text if len(text) <= _SHOWN else text[:_SHOWN].rstrip() + "..."
    return f"its licence says '{shown}', which is no permissive licence that is known here"


def _permits(text: str) -> bool:
    plain = _OF_WHAT.sub("", text)
    if _PERMISSIVE.fullmatch(plain):
        return True
    parts = [_WHAT.sub("", part).removeprefix("the ").strip(" .") for part in _JOINED.split(plain)]
    return all(part and _PERMISSIVE.fullmatch(part) for part in parts)


def _judged_before(text: str) -> bool:
    """Whether this is the text of a known file whose terms were read and say nothing against it."""
    found = [terms for terms in TERMS.values() if terms.licence.strip(" .") == text]
    return bool(found) and all(
        False not in (one.redistribution, one.commercial) and not re.search(r"\bN[CD]\b", one.licence) for one in found
    )
