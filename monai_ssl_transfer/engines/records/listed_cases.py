"""Whether a training gets its cases as lists, from a label server, instead of finding them in a data set."""

from __future__ import annotations

from monai_ssl_transfer.engines.records.run_config import running_parser


def cases_are_listed() -> bool:
    """Whether the running configuration lists its training and validation cases one by one.

    MONAI Label replaces ``train#dataset#data`` and ``validate#dataset#data`` by lists of "image" and "label". Then
    there is no ``dataset_dir``: what would look for cases there asks this and is disabled.
    """
    parser = running_parser()
    if parser is None:
        return False
    return all(isinstance(parser.get(f"{part}#dataset#data"), list) for part in ("train", "validate"))
