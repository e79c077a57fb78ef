"""What every file of commands is given."""

from __future__ import annotations

import argparse

Commands = argparse._SubParsersAction  # of `argparse.ArgumentParser`; argparse has no public name for it
