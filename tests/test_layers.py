"""Data flows one way: a module imports only from floors below its own; the package itself is light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import raymix

ROOT = Path(raymix.__file__).parent
FLOORS = [
    {"simplex", "polytope", "yaml12", "counts"},
    {"space", "space_parts", "space_polytope", "space_recipe", "space_study", "space_checks"}
    | {"sheet", "exchange", "observations", "copies", "stages"},
    {"laws"},
    {"target", "design", "corpus", "proxy"},
    {"tables"},
    {"store", "testing"},
    {"study"},
    {"search"},
    {"on_ray", "plan"},
    {"formats", "report", "results", "clusters", "doctor"},
    {"cli", "commands", "screens", "__main__"},
]
RAY_ALLOWED = {"corpus", "search", "on_ray", "clusters", "doctor"}
NEVER_IMPORTS = {"laws": {"corpus", "proxy", "space", "design"}, "corpus": {"laws"}, "proxy": {"laws", "design"}}


def floor(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def imports() -> Iterator[tuple[str, str]]:
    """(room of the importing file, imported module), lazy imports inside functions included."""
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((parts[0], alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield parts[0], node.module
                if node.module == "raymix":
                    yield from (
                        (parts[0], f"raymix.{alias.name}") for alias in node.names if alias.name != "__version__"
                    )


def test_no_arrow_runs_back_up() -> None:
    for room, module in imports():
        parts = module.split(".")
        if parts[0] == "raymix" and len(parts) > 1:
            assert floor(parts[1]) <= floor(room), f"{room} imports {module} from a floor above"


def test_rooms_that_must_not_know_each_other() -> None:
    for room, module in imports():
        for forbidden in NEVER_IMPORTS.get(room, ()):
            assert not module.startswith(f"raymix.{forbidden}"), f"{room} imports {module}"


def test_few_rooms_know_ray() -> None:
    knows = {room for room, module in imports() if module.split(".")[0] == "ray"}
    assert knows <= RAY_ALLOWED


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__"} <= set().union(*FLOORS)


def test_importing_raymix_is_light() -> None:
    """The commands too: `raymix status` is typed often."""
    heavy = "{'torch', 'ray', 'transformers', 'optuna', 'scipy', 'pandas'}"
    code = f"import raymix.cli, sys; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_reading_a_space_and_a_law_needs_neither_torch_nor_ray() -> None:
    heavy = "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    code = f"import raymix.laws, sys; raymix.SearchSpace, raymix.Study; {heavy}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
