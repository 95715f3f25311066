"""The code that a run depends on: its digest, a user's own modules in it, and ``code.jsonl``.

``code.jsonl`` says which code computed which steps of a run that was resumed on another one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from qhk.errors import UserError
from qhk.files import json_line, read_json_lines, reading, typed, write_atomically
from qhk.settings.root import Settings
from qhk.settings.views import reward_modules
from qhk.tracking.provenance import earlier_codes, read_provenance

PACKAGE = Path(__file__).parents[1]
CODE_FILE = "code.jsonl"
CODE_SUFFIXES = (".py", ".yaml", ".yml")
INSTALLED = ("site-packages", "dist-packages")

SHOWN = 12
"""Digits of a digest in a line for the reader, as in every other one."""


def code_files(trees: Mapping[str, Path], modules: Collection[str] = ()) -> dict[str, bytes]:
    """Return the Python and YAML files below ``trees`` and the sources of ``modules``: place -> content.

    Keys of ``trees`` are the names under which they are placed ("qhk", "conf", ...), so that an editable
    install and a wheel of the same code agree. ``modules`` are dotted names, such as a user's rewards: what
    of them, and of all they import, is the user's own is there too, see ``own_sources``. Raises
    ``UserError`` where a tree holds no such file.
    """
    found: dict[str, bytes] = {}
    for name, root in trees.items():
        files = [path for path in root.rglob("*") if path.suffix in CODE_SUFFIXES and path.is_file()]
        if not files:
            raise UserError(f"code tree {name} at {root} holds no .py or .yaml file: reinstall the package")
        found |= {f"{name}/{path.relative_to(root).as_posix()}": path.read_bytes() for path in files}
    return found | {source.place: source.path.read_bytes() for source in own_sources(modules, apart=trees)}


def files_digest(files: Mapping[str, bytes], trees: Collection[str]) -> str:
    """Return the SHA-256 in hex of ``code_files`` of trees with these names, in any order."""
    digest = hashlib.sha256()
    for _, label, content in sorted((*_label(place, trees), files[place]) for place in files):
        digest.update(f"{label}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _label(place: str, trees: Collection[str]) -> tuple[tuple[bool, str, str], str]:
    """Return where a file comes in the digest, modules behind trees, and by what name."""
    tree, _, relative = place.partition("/")
    if tree in trees:
        return (False, tree, relative), place
    name = place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return (True, name, ""), f"module {name}"


def code_digest(trees: Mapping[str, Path], modules: Collection[str] = ()) -> str:
    """Return the SHA-256 in hex of ``code_files``; raises ``UserError`` as that does.

    Names and contents count; times, order on disk and byte-code do not.
    """
    return files_digest(code_files(trees, modules), trees)


def run_code(settings: Settings) -> str:
    """Return the digest of all code that a run depends on: this package and the user's own rewards.

    It is what the run's ``provenance.json`` will say, so that a plan, a queued job and a finished run can be
    held against each other.
    """
    return code_digest({PACKAGE.name: PACKAGE}, reward_modules(settings))


@dataclass(frozen=True, kw_only=True)
class CodePart:
    """``code`` computed the run after ``after_step`` (-1: from the start, cold start included)."""

    after_step: int
    code: str


def read_code_parts(directory: Path) -> list[CodePart]:
    """Return the parts of a run in order; empty before it began, one for a run of one code."""
    with reading(directory / CODE_FILE, "a record of code", "remove it"):
        return [typed(CodePart, row) for row in read_json_lines(directory / CODE_FILE)]


def note_code(directory: Path, *, step: int) -> list[CodePart]:
    """Record that the present code (in ``provenance.json``) goes on after ``step``; return the run's parts.

    Parts after that step are dropped, since their steps are computed again; ``step`` -1 begins anew. A run
    of a version without this record counts as computed by its last code before this.
    """
    provenance = read_provenance(directory / "provenance.json")
    assert provenance is not None, "an open run directory says which code it was opened by"
    now, before = provenance.code_digest, earlier_codes(directory / "provenance.json")
    parts = [part for part in read_code_parts(directory) if part.after_step < step]
    if not parts:
        first = before[-1] if before and step >= 0 else now
        parts = [CodePart(after_step=-1, code=first)]
    if parts[-1].code != now:
        parts.append(CodePart(after_step=step, code=now))
    write_atomically(directory / CODE_FILE, "".join(json_line(asdict(part)) for part in parts))
    return parts


def code_text(parts: Sequence[CodePart]) -> str:
    """Return the parts as text: ``aaaaaaaaaaaa, behind step 40 bbbbbbbbbbbb``."""
    return ", ".join(
        part.code[:SHOWN] if part.after_step < 0 else f"behind step {part.after_step} {part.code[:SHOWN]}"
        for part in parts
    )


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """The file of one module: ``name`` is dotted, ``place`` its path below a folder of the import path."""

    name: str
    place: str
    path: Path


def own_sources(modules: Collection[str], *, apart: Collection[str] = ()) -> list[SourceFile]:
    """Return the files of ``modules`` and of everything that they import in turn, by name.

    Files of packages (``__init__.py``) are included. Left out are the standard library, installed packages
    and the top packages named in ``apart``. Imports are read from the source and nothing is executed, so a
    module named only at run time (``importlib``) and a file that the code reads are not seen. A name that
    leads nowhere is left out: importing it will fail.
    """
    found: dict[str, SourceFile] = {}
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


def _chain(name: str) -> Iterator[SourceFile]:
    """Yield the files of a module and of the packages around it, up to the first part that is no module."""
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
            yield SourceFile(name=".".join(parts), place=place, path=file)
        folders = inner


def _find(part: str, folders: Sequence[Path]) -> tuple[Path | None, list[Path]]:
    """Return the file of a module in the first folder that has it, and where its own modules lie.

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
    """Return the folders of the import path that hold a first-party top module or package."""
    if name in sys.stdlib_module_names or name in sys.builtin_module_names or name == "__main__":
        return []
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:
        # A loaded module without a specification has no known file.
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


def _imports(source: SourceFile) -> list[str]:
    """Return the dotted names of a module's imports, inside functions too; none for a compiled one."""
    try:
        tree = ast.parse(source.path.read_bytes())
    except SyntaxError:
        # Importing the module will raise this; there is nothing to follow here.
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
    """Return the package below which the names of ``from ... import`` stand."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    around = parts[: len(parts) - (node.level - 1)]
    return ".".join([*around, *filter(None, [node.module])])
