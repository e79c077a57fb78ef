"""Reading a torch file that asks for classes of other programs, without importing or calling any of them.

A pickle is a program: it names classes and functions and calls them. Here no name is ever looked up in a module. What
tensors and plain containers need is rebuilt by the functions of `rebuilding`; a name on the list below becomes an inert
placeholder, a class that takes any arguments and keeps them; every other name stops the reading.
"""

from __future__ import annotations

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from monai_ssl_transfer.errors import WeightsError
from monai_ssl_transfer.weights.reading.rebuilding import REBUILT

INERT = (
    "argparse",  # the command line kept in DINO's and MAE's files
    "omegaconf",  # configurations of Hydra: DINOv2, VISSL, solo-learn
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "pytorch_lightning",  # AttributeDict of hyper-parameters, states of callbacks
    "lightly",
    "timm.utils",
    "yacs.config",
    "easydict",
    "ml_collections",
    "addict",
    "munch",
    "fvcore.common.config",
    "mmcv.utils.config",
    "mmengine.config",
    "mmengine.logging",  # histories of training
    "numpy",  # scalars, dtypes, states of generators; torch files keep no encoder in arrays
    "pathlib",
    "datetime",
    "decimal",
    "uuid",
    "enum",
    "collections",
    "types.SimpleNamespace",
    "typing",
    "functools.partial",
    "torch.optim",  # schedulers
    "torch.amp",
    "torch.cuda.amp",
    "torch.torch_version",
    "torch.utils.data.sampler",
    "torchvision.transforms",
    "PIL.Image.Resampling",
    "dinov2.configs",
    "builtins.getattr",  # how Python 3.11 writes members of enums
    "builtins.object",
    "builtins.slice",
    "builtins.range",
)
"""Modules, with all below them, and single names that are read as placeholders.

Classes of networks (`torch.nn`, ...) are not among them, since their weights would be lost in a placeholder.
"""


class Placeholder:
    """An object of a foreign class, as inert values: it keeps what its pickle gives and does nothing with it.

    Attributes:
        foreign_name: full name of the class that it stands for.
        arguments: what the class would have been called with, and states that are no attributes.
        values: its attributes and its entries, where it is a mapping.
        entries: its entries, where it is a list or a set.
    """

    foreign_name = ""
    arguments: tuple[Any, ...]
    values: dict[Any, Any]
    entries: list[Any]

    def __new__(cls, *arguments: Any, **named: Any) -> Placeholder:
        # not in __init__, since a pickle may make an object without it
        made = super().__new__(cls)
        made.arguments, made.values, made.entries = arguments, dict(named), []
        return made

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Take everything and do nothing."""

    def __setstate__(self, state: Any) -> None:
        """Keep a state: attributes by name, also as the pair that classes with slots write, or anything else."""
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
            if isinstance(part, Mapping):
                self.values.update(part)
            elif part is not None:
                self.arguments = (*self.arguments, part)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.values[key] = value

    def append(self, entry: Any) -> None:
        """Keep an entry of a list."""
        self.entries.append(entry)

    add = append

    def extend(self, entries: Any) -> None:
        """Keep entries of a list."""
        self.entries.extend(entries)

    def __repr__(self) -> str:
        return f"<{self.foreign_name}, not loaded>"


class RefusedNameError(pickle.UnpicklingError):
    """The pickle asks for something that is neither rebuilt nor inert."""


def load_torch(file: Path, mmap: bool, **options: Any) -> Any:
    """`torch.load` on the CPU, by the content of the file only.

    Args:
        file: a torch file.
        mmap: whether tensors are mapped from the file (zip format only).
        options: of `torch.load`.
    """
    if mmap and file.suffix != ".safetensors":  # torch goes by that suffix where it gets a path
        return torch.load(file, map_location="cpu", mmap=True, **options)
    with file.open("rb") as stream:
        return torch.load(stream, map_location="cpu", mmap=False, **options)


def load_inert(file: Path, mmap: bool) -> tuple[Any, tuple[str, ...]]:
    """Read a torch file with placeholders for foreign classes; nothing foreign is imported or called.

    Args:
        file: a torch file; that it is neither TorchScript nor a tar archive must be known before.
        mmap: whether tensors are mapped from the file (zip format only).

    Returns:
        Its content, and the full names of the foreign classes in it.

    Raises:
        WeightsError: if it asks for something that is neither rebuilt nor inert.
        pickle.UnpicklingError, RuntimeError, ...: if it is damaged.
    """
    met: dict[str, type[Placeholder]] = {}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            # protocols 0 to 2 write the names of Python 2
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            return _stand_in(f"{module}.{name}", met)

    try:
        # the one place where weights_only is off: the pickle module is the restricted one
        content = load_torch(file, mmap, weights_only=False, pickle_module=_pickle_module(Unpickler))
    except RefusedNameError as error:
        raise WeightsError(
            f"{file} asks for {error}, which weights do not need and which is not run here: "
            "let whoever made it save the state dict alone, by torch.save(model.state_dict(), file)."
        ) from error
    return content, tuple(sorted(met))


def _pickle_module(unpickler: type[pickle.Unpickler]) -> ModuleType:
    """What torch takes of a pickle module, with a restricted unpickler in the place of the normal one."""
    module = ModuleType("restricted_pickle")
    module.Unpickler = unpickler  # type: ignore[attr-defined]
    module.load = lambda stream, **options: unpickler(stream, **options).load()  # type: ignore[attr-defined]
    return module


def _stand_in(name: str, met: dict[str, type[Placeholder]]) -> Any:
    if name in REBUILT:
        return REBUILT[name]
    if not any(name == inert or name.startswith(inert + ".") for inert in INERT):
        raise RefusedNameError(name)
    if name not in met:
        met[name] = type(name.rsplit(".", 1)[-1], (Placeholder,), {"foreign_name": name})
    return met[name]
