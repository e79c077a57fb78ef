"""Which licences are known to let a model be handed on."""

from __future__ import annotations

import pytest

from monai_ssl_transfer.engines.pretraining.export import FURTHER, LICENCE
from monai_ssl_transfer.export.licence_text import restriction

PERMISSIVE = [
    "", "Apache-2.0", "Apache License 2.0 (code and model weights)", "Apache License, Version 2.0", "MIT License",
    "the MIT license", "BSD-3-Clause", "BSD 3-Clause License", "3-clause BSD", "CC0 1.0 Universal", "CC BY 4.0",
    "CC-BY-4.0", "CC BY-SA 4.0", "Creative Commons Attribution 4.0 International",
    "https://creativecommons.org/licenses/by/4.0/", "Commercial and non-commercial use permitted",
    "code: Apache-2.0; weights: CC BY 4.0", LICENCE, f"{LICENCE}{FURTHER}Apache-2.0",
]  # fmt: skip
RESERVED = [
    "For research purposes only", "research use only", "No commercial use; contact the authors",
    "Not for commercial use", "academic purposes only", "internal use only", "All rights reserved", "CC BY-NC 4.0",
    "CC BY-ND 4.0", "CC-BY-NC-SA-4.0", "MIT, non-commercial", "Apache-2.0 and CC BY-NC 4.0", "non-commercial",
    "https://creativecommons.org/licenses/by-nc/4.0/", f"{LICENCE}{FURTHER}CC BY-NC 4.0",
    f"{LICENCE}{FURTHER}{LICENCE}{FURTHER}CC BY-NC 4.0", "a licence of our own",
]  # fmt: skip


@pytest.mark.parametrize("text", PERMISSIVE)
def test_permissive_and_unknown_licences_pass(text: str):
    assert restriction(text) == ""


@pytest.mark.parametrize("text", RESERVED)
def test_any_other_text_needs_a_statement(text: str):
    assert "its licence says" in restriction(text)
