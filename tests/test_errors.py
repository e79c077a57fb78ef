from __future__ import annotations

import subprocess
import sys

from monai_ssl_transfer.errors import DataError, user_error_of

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
