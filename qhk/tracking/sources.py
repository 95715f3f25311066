"""The files of a user's own modules: what a dotted name imports, apart from what is installed."""

from __future__ import annotations

import ast
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file of one module: ``name`` is dotted, ``place`` its path below a folder of the import path."""

    name: str
    place: str
    path: Path


def own_sources(modules: Collection[str], *, apart: Collection[str] = ()) -> list[Source]:
    """The files of ``modules`` and of everything that they import in turn, by name, packages' own included.

    Only first-party ones: neither the standard library's nor an installed package's, nor those of the top
    packages named in ``apart``. Imports are read from the source, so that a module named only at run time
    (``importlib``) is not seen, nor is a file that the code reads. Nothing is imported or executed here.
    A name that leads nowhere is left out: importing it is what fails.
    """
    found: dict[str, Source] = {}
    open_names = sorted(modules)
    while open_names:
        name = open_names.pop()
        if name.partition(".")[0] in apart:
            continue
        for source in _chain(name):
            if source.name not in found:
                found[source.name] = source
                open_names += _imports(source)
    return [found[name] for name in sorted(found)]


def _chain(name: str) -> Iterator[Source]:
    """The files of a module and of the packages around it; fewer where a part of the name is no module."""
    top, *rest = name.split(".")
    folders: list[Path] | None = _top_folders(top)
    for depth in range(len(rest) + 1):
        if not folders:
            return
        parts = [top, *rest[:depth]]
        file, inner = _find(parts[-1], folders)
        if file is not None:
            is_package = file.name == "__init__.py"
            place = "/".join([*parts, "__init__.py"] if is_package else [*parts[:-1], file.name])
            yield Source(name=".".join(parts), place=place, path=file)
        folders = inner


def _find(part: str, folders: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """The file of a module in the first folder that has it, and where its own modules lie.

    A package comes before a module, as in an import; folders without ``__init__.py`` join in one package.
    """
    for folder in folders:
        inside, module = folder / part, folder / f"{part}.py"
        if (inside / "__init__.py").is_file():
            return inside / "__init__.py", [inside]
        if module.is_file():
            return module, []
    return None, [folder / part for folder in folders if (folder / part).is_dir()]


def _top_folders(name: str) -> list[Path]:
    """The folders of the import path in which a first-party top module or package lies; empty for none."""
    if name in sys.stdlib_module_names or name in sys.builtin_module_names or name == "__main__":
        return []
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:
        # It is loaded, by something that did not say from where.
        return []
    if spec is None:
        return []
    within = list(spec.submodule_search_locations or ())
    files = within or ([spec.origin] if spec.origin else [])
    return [
        folder for folder in (Path(file).absolute().parent for file in files) if not _is_installed(folder)
    ]


def _is_installed(folder: Path) -> bool:
    if any(part in INSTALLED for part in folder.parts):
        return True
    paths = sysconfig.get_paths()
    roots = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    roots += [*site.getsitepackages(), site.getusersitepackages()]
    return any(folder.is_relative_to(root) for root in roots)


def _imports(source: Source) -> list[str]:
    """Dotted names of all that a module imports, those inside functions too; none for a compiled one."""
    try:
        tree = ast.parse(source.path.read_bytes())
    except SyntaxError:
        # Whoever imports it is told; here there is nothing to follow.
        return []
    package = source.name if source.place.endswith("__init__.py") else source.name.rpartition(".")[0]
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            names += [f"{base}.{alias.name}" if base else alias.name for alias in node.names]
    return names


def _base(node: ast.ImportFrom, package: str) -> str:
    """What the names of ``from ... import`` stand below; ``_chain`` passes over those that are no modules."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    around = parts[: len(parts) - (node.level - 1)]
    return ".".join([*around, *filter(None, [node.module])])
