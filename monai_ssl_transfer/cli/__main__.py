"""`python -m monai_ssl_transfer.cli`: the same as ``ssl-transfer``."""

from __future__ import annotations

import sys

from monai_ssl_transfer.cli import main

sys.exit(main())
