"""Where work is done: options that several commands share."""

from __future__ import annotations

import argparse


def add_executor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--executor`` and ``--address``."""
    where = "local: processes on this machine; ray: a Ray cluster (default: local)"
    parser.add_argument("--executor", choices=("local", "ray"), default="local", help=where)
    cluster = "Ray cluster that is there: auto, host:6379 or ray://host:10001 (default: one on this machine, meanwhile)"
    parser.add_argument("--address", default=None, metavar="ADDRESS", help=cluster)
