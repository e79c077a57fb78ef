from __future__ import annotations

import subprocess
import sys

import pytest

from monai_ssl_transfer.errors import DataError, TrainingError, explain_user_errors, false_as_text, user_error_of

WRAPPED = """
from monai_ssl_transfer.errors import DataError, explain_user_errors
explain_user_errors()
explain_user_errors()
try:
    raise DataError("volume-7.nii.gz has no label: add segmentation-7.nii.gz.")
except DataError as error:
    raise RuntimeError("Failed to instantiate component 'x'") from error
"""


def test_last_line_of_a_wrapped_error_is_the_sentence_once() -> None:
    done = subprocess.run([sys.executable, "-c", WRAPPED], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        done.stderr.rstrip().splitlines()[-1] == "DataError: volume-7.nii.gz has no label: add segmentation-7.nii.gz."
    )
    assert done.stderr.count("\nDataError: volume-7") == 1
    assert "Traceback" in done.stderr


def test_errors_of_other_origin_are_left_alone() -> None:
    assert user_error_of(ValueError("x")) is None
    assert user_error_of(None) is None
    inner = DataError("a sentence")
    outer = RuntimeError("outer")
    outer.__cause__ = inner
    assert user_error_of(outer) is inner


def test_import_of_the_package_and_its_command_needs_neither_torch_nor_monai() -> None:
    code = (
        "import sys, monai_ssl_transfer, monai_ssl_transfer.cli; sys.exit(bool({'torch', 'monai'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--resume", "false"], "--resume false"),
        (["--resume=FALSE"], "--resume FALSE"),
        (["--config_file", "a.json", "--train#shuffle", "false", "--seed", "1"], "--train#shuffle false"),
        (["--resume", "False"], None),
        (["--resume", "true"], None),
        (["run", "--dataset_dir", "false_positives"], None),
        ([], None),
    ],
)
def test_false_in_small_letters_would_count_as_true(
    words: list[str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "/usr/lib/python3/site-packages/monai/bundle/__main__.py"
    assert false_as_text([program, *words]) == found
    assert false_as_text(["/usr/bin/ssl-transfer", *words]) is None
    monkeypatch.setattr("sys.argv", [program, *words])
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    if found is None:
        explain_user_errors()
    else:
        with pytest.raises(TrainingError, match="write False"):
            explain_user_errors()
