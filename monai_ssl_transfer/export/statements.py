"""What only the person who exports knows: who made the model, of which data, under which licence, for what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.licence_text import restriction
from monai_ssl_transfer.export.licences import FLAG

_NOT_STATED = "not stated by the person who exported the model"
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\[])")


@dataclass(frozen=True)
class Statements:
    """Statements about a model; "" is not stated.

    Args:
        authors: of the model.
        data_source: the data that it was trained on.
        data_licence: their licence.
        intended_use: what it is for.
    """

    authors: str = ""
    data_source: str = ""
    data_licence: str = ""
    intended_use: str = ""

    def require_right(self, right_stated: bool) -> None:
        """Refuse data whose licence reserves something.

        Raises:
            ExportError: the licence of the data is none that is known to permit it, and no right is stated.
        """
        reason = restriction(self.data_licence)
        if reason and not right_stated:
            raise ExportError(
                f"the weights were trained on data that may bind them ({reason}): keep the bundle to yourself, "
                f"train on other data, or state your right with {FLAG}."
            )

    def metadata(self, template: Mapping[str, Any]) -> dict[str, str]:
        """The entries of ``metadata.json``.

        Args:
            template: of the bundle that was run.
        """
        code = template["authors"]
        made_for = f"{_NOT_STATED}; the bundle is made for: {template['data_source']}"
        return {
            "authors": self.authors or f"{_NOT_STATED} (code of the bundle: {code})",
            "copyright": f"Model: {self.authors or _NOT_STATED}. Code of the bundle: {template['copyright']}",
            "data_source": self.data_source or made_for,
            "data_licence": self.data_licence or _NOT_STATED,
            "intended_use": self.intended_use or template["intended_use"],
        }

    def data(self) -> str:
        """Source and licence of the training data, in a sentence each."""
        return (
            f"This model was trained on: {self.data_source or _NOT_STATED}. Licence of these data: "
            f"{self.data_licence or _NOT_STATED}."
        )

    def data_licence_text(self, readme: str) -> str:
        """The text of ``data_license.txt``.

        Args:
            readme: of the bundle that was run; what it says of the public data that it is made for is quoted.
        """
        lines = [self.data()]
        public = licence_sentences(readme)
        if not self.data_licence and public:
            lines.append(f"Of the public data that the bundle is made for its documentation says: {' '.join(public)}")
        lines.append(
            "No data come with this bundle. The licence of the data that the model was trained on also binds its "
            "weights, as far as the law of your country says so."
        )
        return "\n".join(lines) + "\n"


def licence_sentences(readme: str) -> list[str]:
    """What the section on data of a bundle's README says of licences."""
    section = re.search(r"^## Data\n(.*?)(?=^#|\Z)", readme, re.MULTILINE | re.DOTALL)
    text = re.sub(r"\s+", " ", section.group(1)) if section else ""
    text = re.sub(r"No data and no weights come with this bundle: m", "M", text)
    text = re.sub(r"No data and no weights come with this bundle: ", "", text)
    return [one.strip() for one in _SENTENCE.split(text) if re.search(r"\bCC BY|licen[cs]e", one)]
