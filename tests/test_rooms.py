"""What may import what: rooms in one direction, libraries in the rooms that own them, no circle of files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qhk"
BASE = "errors types files plain tables tasks settings"

ROOMS = {
    "errors": "",
    "types": "errors",
    "files": "errors",
    "plain": "",
    "tables": "plain",
    "tasks": "errors types",
    "statistics": "errors types",
    "baselines": "errors types",
    "objective": "errors types",
    "settings": "errors files plain tasks objective",
    "rewards": "errors types plain tasks",
    "config": f"{BASE} rewards",
    "data": f"{BASE} rewards",
    "policy": f"{BASE} rewards data objective",
    "rollout": f"{BASE} rewards data objective policy",
    "evaluation": f"{BASE} rewards data objective policy rollout statistics baselines",
    "tracking": f"{BASE} data",
    "pairs": f"{BASE} rewards data policy rollout evaluation",
    "training": f"{BASE} rewards data objective policy rollout evaluation tracking statistics",
    "sweep": f"{BASE} config data policy evaluation tracking",
    "report": f"{BASE} rewards config data statistics evaluation tracking sweep pairs",
}
"""Room -> the rooms that it may import. ``cli`` stands above all of them."""

OWNERS = {
    "hydra": "config",
    "omegaconf": "config",
    "accelerate": "training/distributed.py",
    "deepspeed": "training/zero.py",
    "wandb": "tracking",
    "wandb_workspaces": "report/mirror.py report/workspace.py",
    "trackio": "tracking/trackio_mirror.py",
    "submitit": "sweep/slurm.py sweep/slurm_job.py",
    "optuna": "sweep/search.py",
    "av": "data",
    "peft": "policy",
    "bitsandbytes": "policy",
    "imagecorruptions": "data",
    "pydantic": "files.py settings cli",
    "httpx": "pairs rollout/vllm.py",
    "torchao": "training/eight_bit.py",
    "vllm": "rollout/vllm.py",
    "skimage": "pairs",
    "starlette": "pairs report",
    "uvicorn": "pairs",
    "torch": "objective policy rollout evaluation training cli",
    "transformers": "policy training cli",
}
"""Library -> the rooms or files that may import it."""

HEAVY = {*OWNERS, "PIL", "datasets", "numpy", "packaging", "pandas", "pyarrow", "rich", "scipy"}
"""Libraries that take long to import or come with an extra: the reasons for an import inside a function."""

FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Every module of the package by its dotted name."""


@cache
def imports(module: str) -> tuple[tuple[str, bool], ...]:
    """Return what a file imports, each with whether that is inside a function; our modules by their file."""
    path = FILES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = {id(node) for function in functions for node in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.append((name if name in FILES else node.module, id(node) in inner))
    return tuple(found)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def place_of(module: str) -> str:
    return FILES[module].relative_to(PACKAGE).as_posix()


def is_heavy(name: str, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether importing ``name`` imports a heavy library, directly or by way of our own files."""
    if name.split(".")[0] in HEAVY:
        return True
    if name not in FILES or name in seen:
        return False
    return any(is_heavy(other, seen | {name}) for other, inside in imports(name) if not inside)


@pytest.mark.parametrize("module", FILES, ids=place_of)
def test_rooms_import_downwards_only(module: str) -> None:
    room = room_of(module)
    if room in ("", "__main__", "api", "cli"):
        return
    assert room in ROOMS, f"{room} is a new room: say in this test what it may import"
    allowed = {room, *ROOMS[room].split()}
    for name, _ in imports(module):
        parts = name.split(".")
        if parts[0] == "qhk" and len(parts) > 1:
            assert parts[1] in allowed, f"{place_of(module)} must not import {name}"


@pytest.mark.parametrize("module", FILES, ids=place_of)
def test_libraries_stay_with_their_owners(module: str) -> None:
    for name, _ in imports(module):
        owners = OWNERS.get(name.split(".")[0])
        if owners is not None:
            here = {room_of(module), place_of(module)}
            assert here & set(owners.split()), f"{place_of(module)} must not import {name}"


@pytest.mark.parametrize("module", FILES, ids=place_of)
def test_imports_inside_functions_keep_heavy_libraries_out(module: str) -> None:
    for name, inside in imports(module):
        if inside:
            assert is_heavy(name), f"{place_of(module)}: import {name} at the top of the file"


def test_directions_have_no_circle() -> None:
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert set(allowed.split()) <= above, room
        above.add(room)


def circles() -> Iterator[list[str]]:
    """Yield every set of files of which each imports each, directly or by way of others."""
    reached = {module: {name for name, _ in imports(module) if name in FILES} - {module} for module in FILES}
    for middle in FILES:
        for module in FILES:
            if middle in reached[module]:
                reached[module] |= reached[middle]
    left = set(FILES)
    for module in FILES:
        circle = [other for other in reached[module] if module in reached[other]]
        if circle and module in left:
            left -= {module, *circle}
            yield sorted({module, *circle})


def test_files_have_no_import_circle() -> None:
    assert not list(circles())


OPENERS = {
    *("json.load", "json.loads", "yaml.load", "yaml.safe_load", "torch.load", "load_from_disk", "av.open"),
    *("open", ".open", ".read_text", ".read_bytes", ".write_text", ".write_bytes"),
}
"""What opens a file or takes its content apart: whole calls, and methods of whatever."""

AT_HOME = {
    "config/catalogue.py": "text that read_text gave",
    "data/image.py": "every fault of a picture is one of _BROKEN; videos likewise have FFmpegError",
    "data/video.py": "as data/image.py",
    "data/miniature/": "writers of layouts, called inside new_folder",
    "data/protocols.py": "lists of ours",
    "cli/help.py": "YAML of ours",
    "cli/process.py": "the null device",
    "pairs/operations.py": "bytes in memory",
    "pairs/similarity.py": "bytes in memory",
    "data/degrade.py": "bytes in memory",
    "pairs/review/app.py": "the page's own files",
    "policy/contents.py": "files just written, inside writing",
    "policy/template.py": "what its parent process sends, and /proc",
    "policy/tokenizer.py": "a tokenizer in memory",
    "report/render.py": "the page's own files",
    "report/published.py": "a table of ours",
    "sweep/process.py": "/proc and /sys",
    "tasks/answer_parser.py": "text of a model, whose faults are answers",
    "tracking/code.py": "sources that were imported",
    "tracking/provenance.py": "/proc",
    "tracking/status.py": "/proc, and a status on a full disk, whose fault is the one before",
    "tracking/mirror.py": "what its parent process sends",
    "training/checkpoint.py": "any fault of a state is caught by _read_state; the writers run inside writing",
}
"""Files that open something outside ``reading`` and ``writing`` -> why no foreign file is at fault there."""


def opens_outside(name: str) -> list[str]:
    """Return the calls of a module that open a file outside the two blocks, with their lines."""
    found = []

    def look(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.With):
            entered = [item.context_expr for item in node.items]
            inside = inside or any(
                isinstance(call, ast.Call) and ast.unparse(call.func) in ("reading", "writing")
                for call in entered
            )
        if isinstance(node, ast.Call) and not inside:
            whole = ast.unparse(node.func)
            words = {whole, f".{node.func.attr}"} if isinstance(node.func, ast.Attribute) else {whole}
            if words & OPENERS:
                found.append(f"line {node.lineno}: {whole}")
        for child in ast.iter_child_nodes(node):
            look(child, inside)

    look(ast.parse(FILES[name].read_text(encoding="utf-8")), False)
    return found


@pytest.mark.parametrize("name", sorted(set(FILES) - {"qhk.files"}))
def test_files_are_opened_inside_the_boundary(name: str) -> None:
    """A foreign file that is damaged, or a place that cannot be written, is one line that names it."""
    found = opens_outside(name)
    at_home = any(place_of(name).startswith(place) for place in AT_HOME)
    assert not found or at_home, f"{place_of(name)} {found}: go through a function of files.py"


def test_every_file_that_is_excused_opens_one() -> None:
    for place in AT_HOME:
        assert any(opens_outside(name) for name in FILES if place_of(name).startswith(place)), place


PLAIN = {"qhk.plain", "qhk.policy.template"}
"""Where the builtin ``print`` is meant; the latter's lines are JSON for its parent process."""


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_shown_is_plain_text(name: str) -> None:
    """Names of files and answers of models: no markup and no control character of theirs has an effect."""
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    taken = {(node.module, alias.name) for node in froms for alias in node.names}
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    prints = any(isinstance(called, ast.Name) and called.id == "print" for called in calls)
    assert not prints or name in PLAIN or ("qhk.plain", "print") in taken, "import print from qhk.plain"
    assert not {("rich.table", "Table"), ("rich.text", "Text")} & taken, "import them from qhk.tables"


def test_models_are_loaded_in_one_place_and_never_with_their_code() -> None:
    for name, path in FILES.items():
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        loads = [
            call
            for call in calls
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("from_pretrained", "pipeline")
        ]
        assert not loads or name == "qhk.policy.load"
        for call in loads:
            words = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert words.get("trust_remote_code") == "False", ast.unparse(call)
