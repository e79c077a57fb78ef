"""Which part of the package's source a definition needs."""

from __future__ import annotations

import ast

import pytest

from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.source_closure import PACKAGE, SourceClosure, origin

INFERER = f"{PACKAGE}.engines.transfer.inference.SliceVolumeInferer"


def closure_of(*targets: str) -> SourceClosure:
    closure = SourceClosure()
    for target in targets:
        closure.add(*target.rsplit(".", 1))
    return closure


def test_what_training_needs_stays_behind():
    texts = closure_of(f"{PACKAGE}.engines.transfer.fine_tuning.load_model").texts("scripts")
    assert set(texts) == {f"{PACKAGE}.engines.transfer.fine_tuning", f"{PACKAGE}.errors"}
    names = {node.name for text in texts.values() for node in ast.parse(text).body if hasattr(node, "name")}
    assert {"load_model", "TrainingError", "UserError"} <= names
    assert not {"save_model", "BestModelSaver", "initialise_encoder", "DataError"} & names


def test_every_name_that_the_kept_source_uses_is_there():
    closure = closure_of(
        f"{PACKAGE}.engines.transfer.inference.SliceVolumeInferer", f"{PACKAGE}.networks.detection.build_detector"
    )
    for module, text in closure.texts("scripts").items():
        assert PACKAGE not in text, module
        tree = ast.parse(text)
        package = set(closure.wanted)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scripts"):
                home = PACKAGE + (node.module or "").removeprefix("scripts")
                for alias in node.names:
                    assert home in package or f"{home}.{alias.name}" in package, (module, alias.name)
                    if home in package:
                        assert alias.name in closure.needed_names(home)


def test_names_that_are_passed_on_are_followed_home():
    assert origin(f"{PACKAGE}.networks", "build_unet") == (f"{PACKAGE}.networks.segmentation", "build_unet")


def test_libraries_are_named_as_they_are_installed():
    assert {"monai", "nibabel", "numpy", "torch"} == closure_of(
        f"{PACKAGE}.engines.transfer.inference.SliceVolumeInferer"
    ).libraries()


def test_an_unknown_definition_is_named():
    with pytest.raises(ExportError, match="no_such_thing"):
        closure_of(f"{PACKAGE}.errors.no_such_thing")
    with pytest.raises(ExportError, match="nowhere"):
        closure_of(f"{PACKAGE}.nowhere.thing")
