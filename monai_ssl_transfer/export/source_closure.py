"""The part of this package's source that a few functions and classes need, definition by definition.

A bundle that runs where only MONAI is installed carries the code that its inference needs. Whole modules would drag in
half of the package, because a module also holds what training needs; so the unit here is the definition at the top of a
module: what a wanted definition names is wanted, too, and everything else is left behind.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from sys import stdlib_module_names

from monai_ssl_transfer.errors import ExportError

PACKAGE = __name__.partition(".")[0]
EVERYTHING = "*"
_EFFECTLESS = ("dataclass", "lru_cache", "cache", "contextmanager", "no_grad", "unused")
"""Decorators that register nothing: what they decorate is left behind when nobody asks for it."""


@dataclass(frozen=True)
class Definition:
    """One statement at the top of a module, with the comments above and the text below that belong to it."""

    node: ast.stmt
    text: str
    binds: frozenset[str]
    uses: frozenset[str]

    @property
    def is_import(self) -> bool:
        """Whether it only binds names of other modules."""
        return isinstance(self.node, ast.Import | ast.ImportFrom)

    @property
    def acts(self) -> bool:
        """Whether importing the module does something beyond binding names (a registration)."""
        decorators = getattr(self.node, "decorator_list", [])
        if any(not _name_of(one).endswith(_EFFECTLESS) for one in decorators):
            return True
        return isinstance(self.node, ast.Expr | ast.If | ast.For | ast.With | ast.Try)


@dataclass
class SourceClosure:
    """What is wanted of which module.

    Args:
        wanted: names by module; `EVERYTHING` is in it where a module is used as a whole.
    """

    wanted: dict[str, set[str]] = field(default_factory=dict)

    def add(self, module: str, name: str) -> None:
        """Want one definition with all that it needs.

        Raises:
            ExportError: there is no such definition.
        """
        module, name = origin(module, name)
        names = self.wanted.setdefault(module, set())
        if name in names:
            return
        names.add(name)
        kept = list(self._kept(module))
        if name != EVERYTHING and not any(name in one.binds for one in kept):
            raise ExportError(f"{module} defines no {name}, which the configuration asks for: mend its name there.")
        for needed in _package_imports(kept):
            self.add(*needed)

    def _kept(self, module: str) -> Iterator[Definition]:
        names = self.needed_names(module)
        for one in definitions(module):
            if EVERYTHING in self.wanted[module] or one.acts or one.binds & names:
                yield one

    def needed_names(self, module: str) -> set[str]:
        """Names at the top of a module that the wanted ones need."""
        found = definitions(module)
        names, todo = set(self.wanted[module]), [one for one in found if one.acts or one.binds & self.wanted[module]]
        if EVERYTHING in names:
            return {name for one in found for name in one.binds}
        while todo:
            one = todo.pop()
            names |= set() if one.is_import else one.binds
            for other in found:
                fresh = other.binds & one.uses - names
                if fresh:
                    names |= fresh
                    if not other.is_import:
                        todo.append(other)
        return names

    def texts(self, package: str) -> dict[str, str]:
        """The kept source by module, its imports leading into another package.

        Args:
            package: takes the place of this package's name, for instance "scripts".
        """
        return {module: self._text(module, package) for module in sorted(self.wanted)}

    def _text(self, module: str, package: str) -> str:
        names, parts, previous = self.needed_names(module), [], None
        for one in self._kept(module):
            text = _pruned_import(one.node, names, package) if one.is_import else _redirected(one.text, package)
            if text:
                is_import = one.is_import
                parts.append(("\n" if previous is None or (is_import and previous) else "\n\n\n") + text)
                previous = is_import
        return f'"""{ast.get_docstring(tree(module))}"""\n\nfrom __future__ import annotations\n{"".join(parts)}\n'

    def libraries(self) -> set[str]:
        """Names of the distributions that the kept source imports, Python's own left out."""
        found: set[str] = set()
        for module in self.wanted:
            names = self.needed_names(module)
            for one in self._kept(module):
                found |= set(_foreign_imports(one, names))
        known = packages_distributions()
        return {min(known[name], key=len) for name in found - stdlib_module_names - {PACKAGE} if name in known}


def origin(module: str, name: str) -> tuple[str, str]:
    """Where a name is really defined: packages and modules that only pass it on are followed.

    Returns:
        Module and name; (module, `EVERYTHING`) when the name is a module.
    """
    if source_file(f"{module}.{name}") is not None:
        return f"{module}.{name}", EVERYTHING
    for one in definitions(module):
        if isinstance(one.node, ast.ImportFrom) and name in one.binds and (one.node.module or "").startswith(PACKAGE):
            original = next(alias.name for alias in one.node.names if (alias.asname or alias.name) == name)
            return origin(one.node.module or "", original)
    return module, name


def source_file(module: str) -> Path | None:
    """The file of a module of this package, found without importing it; ``None`` if there is none."""
    root = find_spec(PACKAGE)
    if root is None or not root.submodule_search_locations or module.partition(".")[0] != PACKAGE:
        return None
    path = Path(root.submodule_search_locations[0], *module.split(".")[1:])
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((one for one in candidates if one.is_file()), None)


def is_package(module: str) -> bool:
    """Whether a module of this package is a folder of modules."""
    file = source_file(module)
    return file is not None and file.name == "__init__.py"


@cache
def tree(module: str) -> ast.Module:
    """A module's syntax.

    Raises:
        ExportError: there is no such module.
    """
    return ast.parse(_source(module))


@cache
def definitions(module: str) -> tuple[Definition, ...]:
    """What stands at the top of a module, its docstring and ``from __future__`` left out."""
    lines, body = _source(module).splitlines(), tree(module).body
    found: list[Definition] = []
    end = 0
    for position, node in enumerate(body):
        first, last = _first_line(node, lines, end), node.end_lineno or node.lineno
        text, end = "\n".join(lines[first - 1 : last]), last
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if _is_text(node):
            if position and found:  # the description of the constant above
                above = found.pop()
                found.append(Definition(above.node, f"{above.text}\n{text}", above.binds, above.uses))
        elif not future:
            found.append(Definition(node, text, frozenset(_bound(node)), frozenset(_used(node))))
    return tuple(found)


@cache
def _source(module: str) -> str:
    file = source_file(module)
    if file is None:
        raise ExportError(f"there is no module {module}, which the configuration asks for: mend its name there.")
    return file.read_text(encoding="utf-8")


def _first_line(node: ast.stmt, lines: list[str], end: int) -> int:
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", []))])
    while first - 1 > end and lines[first - 2].startswith("#"):
        first -= 1
    return first


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    else:
        for one in ast.walk(node):
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                yield one.id
            elif isinstance(one, ast.Import | ast.ImportFrom):
                yield from _bound(one)


def _used(node: ast.stmt) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Name):
            yield one.id


def _package_imports(kept: Iterable[Definition]) -> Iterator[tuple[str, str]]:
    """Names of this package that definitions import, at the top or inside of a function."""
    kept = list(kept)
    used = {name for one in kept if not one.is_import for name in one.uses}
    for one in kept:
        for node in ast.walk(one.node):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
                for alias in node.names:
                    if not one.is_import or (alias.asname or alias.name) in used:
                        yield node.module or "", alias.name


def _foreign_imports(one: Definition, names: set[str]) -> Iterator[str]:
    for node in ast.walk(one.node):
        if isinstance(node, ast.ImportFrom):
            if not one.is_import or any((alias.asname or alias.name) in names for alias in node.names):
                yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if not one.is_import or (alias.asname or alias.name).partition(".")[0] in names:
                    yield alias.name.partition(".")[0]


def _pruned_import(node: ast.stmt, names: set[str], package: str) -> str:
    """An import of the wanted names only, one line per module that they really come from."""
    if isinstance(node, ast.Import):
        kept = [alias for alias in node.names if (alias.asname or alias.name).partition(".")[0] in names]
        return f"import {', '.join(ast.unparse(alias) for alias in kept)}" if kept else ""
    if not isinstance(node, ast.ImportFrom):
        return ""
    kept = [alias for alias in node.names if (alias.asname or alias.name) in names]
    return "\n".join(_import_lines(node.module or "", kept, package))


def _import_lines(module: str, aliases: Iterable[ast.alias], package: str) -> Iterator[str]:
    if module.partition(".")[0] != PACKAGE:
        kept = ", ".join(ast.unparse(alias) for alias in aliases)
        if kept:
            yield f"from {module} import {kept}"
        return
    for alias in aliases:
        home, name = origin(module, alias.name)
        if name == EVERYTHING:
            home, _, name = home.rpartition(".")
        bound = alias.asname or alias.name
        yield f"from {package}{home.removeprefix(PACKAGE)} import {name}{'' if name == bound else f' as {bound}'}"


def _redirected(text: str, package: str) -> str:
    """A definition whose own imports (inside of a function) lead into the other package."""
    lines = text.splitlines()
    for node in sorted(_inner_imports(text), key=lambda one: one.lineno, reverse=True):
        indent = " " * node.col_offset
        lines[node.lineno - 1 : node.end_lineno] = [
            indent + line for line in _import_lines(node.module or "", node.names, package)
        ]
    return "\n".join(lines)


def _inner_imports(text: str) -> list[ast.ImportFrom]:
    return [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE
    ]


def _name_of(decorator: ast.expr) -> str:
    return ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
