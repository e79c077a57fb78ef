"""Inference without this package: its code goes into the bundle's ``scripts`` and its configuration points there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_ssl_transfer import __version__
from monai_ssl_transfer.errors import ExportError
from monai_ssl_transfer.export.source_closure import PACKAGE, SourceClosure, is_package, origin

FOLDER = "scripts"
ON_PATH = "scripts_on_path"
_IMPORT = re.compile(rf"\$from ({PACKAGE}[\w.]*) import (\w+)$")
_INSERT = (
    "$[sys.modules.pop(name) for name in sorted(sys.modules, reverse=True) if name.split('.')[0] == 'scripts' "
    "and os.path.join(os.path.abspath(@bundle_root), 'scripts') not in "
    "list(getattr(sys.modules['scripts'], '__path__', []))], sys.path.insert(0, os.path.abspath(@bundle_root))"
)


def without_package(config: dict[str, Any]) -> tuple[dict[str, Any], SourceClosure]:
    """Point a configuration at the code in ``scripts``.

    MONAI puts a bundle's folder on ``sys.path`` only when ``run`` begins, and carries out the import statements of a
    configuration before anything else. So nothing is imported by statement: every component that needs ``scripts``
    requires an item that puts the folder on the path first, and functions are items, too. Other bundles' ``scripts``
    that are loaded in the same process are forgotten by name; objects made from them live on.

    Args:
        config: of inference; not changed.

    Returns:
        The new configuration and the code that it needs.
    """
    closure = SourceClosure()
    functions: dict[str, dict[str, Any]] = {}
    imports = []
    for statement in config.get("imports", []):
        found = _IMPORT.match(statement)
        if found is None:
            imports.append(statement)
            continue
        module, name = found.groups()
        if name in config:
            raise ExportError(f"inference.json imports {name} and has a setting of that name: rename one of them.")
        functions[name] = _component({"_target_": f"{module}.{name}", "_mode_": "callable"}, closure)
    if "$import sys" not in imports:
        imports.insert(0, "$import sys")
    if "$import os" not in imports:
        imports.insert(0, "$import os")
    rest = {name: value for name, value in config.items() if name not in ("imports", "initialize", "run")}
    rewritten = {name: _rewritten(value, functions, closure) for name, value in rest.items()}
    # monai.bundle.load carries out initialize, and a stock network needs nothing of scripts
    run = _rewritten([*config.get("initialize", []), *config.get("run", [])], functions, closure)
    if not closure.wanted:
        return config, closure
    description = {"_desc_": rewritten.pop("_desc_")} if "_desc_" in rewritten else {}
    first = {**description, "imports": imports, "bundle_root": rewritten.pop("bundle_root"), ON_PATH: _INSERT}
    return {**first, **functions, **rewritten, "initialize": [], "run": run}, closure


def write_scripts(closure: SourceClosure, folder: Path) -> None:
    """Write the code of a bundle.

    Args:
        closure: what is needed.
        folder: of the bundle.
    """
    texts = closure.texts(FOLDER)
    packages = {(folder / FOLDER).joinpath(*module.split(".")[1:-1]) for module in texts}
    packages |= {(folder / FOLDER).joinpath(*module.split(".")[1:]) for module in texts if is_package(module)}
    for package in packages:
        for level in (package, *package.parents):
            if level == folder:
                break
            level.mkdir(parents=True, exist_ok=True)
            (level / "__init__.py").write_text(_header("of this bundle: what its inference needs"))
    for module, text in texts.items():
        path = (folder / FOLDER).joinpath(*module.split(".")[1:])
        path = path / "__init__.py" if is_package(module) else path.with_suffix(".py")
        path.write_text(_header(f"{module}: what the inference of this bundle needs of it") + text, encoding="utf-8")


def _header(what: str) -> str:
    owner = "# Copyright (c) monai-ssl-transfer authors. Apache License 2.0, see LICENSE."
    return f"{owner}\n# Version {__version__} {what}.\n"


def _rewritten(value: Any, functions: Mapping[str, Any], closure: SourceClosure) -> Any:
    if isinstance(value, list):
        return [_rewritten(one, functions, closure) for one in value]
    if isinstance(value, dict):
        changed = {name: _rewritten(one, functions, closure) for name, one in value.items()}
        return _component(changed, closure) if str(value.get("_target_", "")).startswith(PACKAGE) else changed
    if isinstance(value, str) and value.startswith("$"):
        for name in functions:
            value = re.sub(rf"(?<![\w@.'\"]){name}\b(?!')", f"@{name}", value)
    return value


def _component(value: dict[str, Any], closure: SourceClosure) -> dict[str, Any]:
    """A component whose code is in ``scripts``, and which therefore requires the folder on the path."""
    module, _, name = str(value["_target_"]).rpartition(".")
    module, name = origin(module, name)
    closure.add(module, name)
    target = f"{FOLDER}{module.removeprefix(PACKAGE)}.{name}"
    return {"_target_": target, "_requires_": f"@{ON_PATH}", **{k: v for k, v in value.items() if k != "_target_"}}
