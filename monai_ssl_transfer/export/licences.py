"""Where the weights of a bundle come from, and whether they may be handed on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.licence_text import restriction
from monai_ssl_transfer.export.run_folder import FinishedRun
from monai_ssl_transfer.weights.published.files import known_file

FLAG = "--licence-allows-redistribution"
_BEGINNINGS = {"started_from": "start of the encoder", "continued_from": "earlier pretraining of the encoder"}


@dataclass(frozen=True)
class Source:
    """One step of the way that the weights came.

    Args:
        what: "encoder", "start of the encoder" for what that encoder's pretraining began with, or "earlier pretraining
            of the encoder" for a run that it continued.
        file: name of the file, without folders.
        sha256: of the file; "" if unknown.
        made_by: method or program; "" if unknown.
        licence: text; "" if unknown.
        acknowledgement: what its authors ask for; "" if nothing is known.
        restricted: why it may not be handed on; "" if nothing speaks against it.
    """

    what: str
    file: str
    sha256: str = ""
    made_by: str = ""
    licence: str = ""
    acknowledgement: str = ""
    restricted: str = ""


@dataclass(frozen=True)
class Provenance:
    """The chain behind the weights.

    Args:
        known: whether the run recorded where its encoder started.
        sources: from the nearest to the farthest; none for a run from scratch.
        card: card of the encoder, as it was written; empty without one.
        right_stated: whether the person who exported stated the right to hand the weights on.
    """

    known: bool
    sources: tuple[Source, ...]
    card: dict[str, Any]
    right_stated: bool = False

    def to_json(self) -> dict[str, Any]:
        """The chain as plain values."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """One line per step, for people."""
        if not self.known:
            return ["Where the encoder started is not recorded in the run."]
        if not self.sources:
            return ["Trained from random weights: no weights of others are in this model."]
        return [
            f"{one.what}: `{one.file}`"
            + (f", {one.made_by}" if one.made_by else "")
            + (f", SHA-256 {one.sha256}" if one.sha256 else "")
            + f". Licence: {one.licence or 'unknown; ask its authors'}."
            + (f" {one.acknowledgement}" if one.acknowledgement else "")
            for one in self.sources
        ]


def provenance(run: FinishedRun, right_stated: bool = False) -> Provenance:
    """Follow the weights of a run back to where they began.

    Args:
        run: the run.
        right_stated: the user states the right to hand on what a source's licence reserves.

    Raises:
        ExportError: a source may not be handed on, or nothing is known of it, and no right is stated.
    """
    card = run.card if run.pretraining else (run.encoder or {}).get("card") or {}
    if run.pretraining:
        known, sources = True, tuple(_of_start(card))
    elif run.encoder is None:  # a record of random weights exists, too: without one nothing is known
        known, sources = False, ()
    else:
        known, sources = True, tuple(_of_record(run.encoder)) if run.encoder.get("file") else ()
    if not known and not right_stated:
        raise ExportError(
            f"{run.folder} does not record which encoder its training began with, so its licence is unknown: train "
            f"again with this version, or state your right to hand the weights on with {FLAG}."
        )
    for one in sources:
        if one.restricted and not right_stated:
            raise ExportError(
                f"the weights began with {one.file}, which may not simply be handed on ({one.restricted}): keep the "
                f"bundle to yourself, begin with another encoder, or state your right with {FLAG}."
            )
    return Provenance(known, sources, card, right_stated)


def _of_record(record: Mapping[str, Any]) -> Iterator[Source]:
    card = record.get("card") or {}
    method = card.get("method") or {}
    made_by = ", ".join(str(one) for one in (record.get("source"), method.get("name")) if one)
    yield _source("encoder", str(record["file"]), str(record.get("sha256") or ""), made_by, card.get("licence", ""))
    if card.get("source_hash"):
        known = known_file(card["source_hash"])
        if known is not None and known.sha256 != record.get("sha256"):
            yield _source("origin of the encoder", known.name, known.sha256, known.method, known.licence)
    yield from _of_start(card)


def _of_start(card: Mapping[str, Any]) -> Iterator[Source]:
    """What a pretraining began with or continued, what that had begun with, and so on."""
    method = card.get("method")
    if not isinstance(method, Mapping):
        return
    for entry, what in _BEGINNINGS.items():
        start = method.get(entry)
        if isinstance(start, Mapping):
            before = start.get("method") or {}
            name = str(before.get("name", "")) if isinstance(before, Mapping) else str(before)
            file, sha256 = str(start.get("file") or "unnamed"), str(start.get("sha256") or "")
            yield _source(what, file, sha256, name, str(start.get("licence") or ""))
            yield from _of_start(start)


def _source(what: str, file: str, sha256: str, made_by: str, licence: str) -> Source:
    known = known_file(sha256) if sha256 else None
    if known is None:
        return Source(what, file, sha256, made_by, licence, "", restriction(licence))
    reasons = [
        text
        for text, given in (("no redistribution", known.redistribution), ("no commercial use", known.commercial))
        if given is False
    ]
    text = known.licence or licence
    restricted = ", ".join(reasons) or restriction(text)
    return Source(what, file, sha256, made_by or known.method, text, known.acknowledgement, restricted)
