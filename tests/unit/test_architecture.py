"""Arrows point one way: every import under src/novad and flows, those inside functions too."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What each room may import; itself and novad's version are always allowed.
CORE = {"errors", "garbage", "orphans"}
STAGES = CORE | {"evaluation", "vision", "images", "config"}
ROOMS = {
    "errors": set[str](),
    "garbage": set[str](),
    "orphans": set[str](),
    "config": CORE,
    "vision": CORE,
    "pretraining": CORE | {"vision"},
    "images": CORE | {"config"},
    "evaluation": CORE | {"vision", "images", "config"},
    "monitoring": CORE,
    "stages": STAGES,
    "benchmarking": STAGES | {"stages"},
    "tracking": STAGES | {"stages", "monitoring"},
    "report": STAGES | {"tracking"},
    "serving": STAGES | {"stages", "tracking"},
    "edge": STAGES | {"tracking"},
    "pipeline": STAGES | {"stages", "tracking", "serving"},
    "flows": STAGES | {"stages", "tracking", "report", "serving", "pipeline"},
    "cli": STAGES | {"stages", "benchmarking", "tracking", "report", "serving", "edge", "pipeline", "flows"},
}

ORCHESTRATION = {"prefect", "dvc", "mlflow", "great_expectations"}
BANNED = {
    "vision": ORCHESTRATION | {"pandas", "PIL", "sklearn", "pydantic"},
    "pretraining": ORCHESTRATION,
    "images": {"torch", "timm", "captum", "bcos", "faiss", "prefect", "mlflow", "dvc"},
    "config": ORCHESTRATION | {"torch", "pandas", "numpy"},
    "evaluation": ORCHESTRATION | {"torch"},
    "monitoring": ORCHESTRATION | {"torch", "pandas", "sqlalchemy"},
    "stages": ORCHESTRATION,
    "benchmarking": ORCHESTRATION,
    "tracking": {"prefect", "dvc", "great_expectations"},
    "serving": {"prefect", "dvc", "great_expectations"},
    "report": ORCHESTRATION | {"torch"},
    "edge": ORCHESTRATION,
    "pipeline": {"mlflow", "great_expectations"},
}


def imports_in(source: str, package: str) -> Iterator[str]:
    """Dotted names that a module of ``package`` imports, at any depth; `from a import b` also as a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    """Top-level package or module of novad, or ``flows``."""
    inside = path.relative_to(ROOT)
    return "flows" if inside.parts[0] == "flows" else Path(inside.parts[2]).stem


def modules() -> list[Path]:
    found = [*(ROOT / "src/novad").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]
    return sorted(path for path in found if path != ROOT / "src/novad/__init__.py")


def rooms_used(path: Path, source: str) -> Iterator[str]:
    package = ".".join(path.relative_to(ROOT / "src").parts[:-1]) if "src" in path.parts else "flows"
    for name in imports_in(source, package):
        first, *rest = name.split(".")
        if first == "flows":
            yield "flows"
        elif first == "novad" and rest:
            yield rest[0]


def wrong_arrows(path: Path, source: str) -> list[str]:
    """Rooms that a module imports and its own room may not."""
    room = room_of(path)
    known = set(ROOMS) - {room}
    return sorted(other for other in set(rooms_used(path, source)) & known if other not in ROOMS[room])


def banned_packages(path: Path, source: str) -> list[str]:
    names = {name.split(".")[0] for name in imports_in(source, "")}
    return sorted(names & BANNED.get(room_of(path), set()))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules(), ids=named)
def test_a_module_imports_only_from_rooms_below_its_own(path: Path) -> None:
    assert wrong_arrows(path, path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", modules(), ids=named)
def test_a_module_imports_no_package_that_its_room_must_not_know(path: Path) -> None:
    assert banned_packages(path, path.read_text("utf-8")) == []


def test_every_room_has_its_place() -> None:
    assert {room_of(path) for path in modules()} == set(ROOMS)


def test_the_arrows_close_no_circle() -> None:
    left = dict(ROOMS)
    while left:
        free = [room for room, below in left.items() if not below & set(left)]
        assert free, f"a circle among {sorted(left)}"
        left = {room: below for room, below in left.items() if room not in free}


@pytest.mark.parametrize(
    "source",
    [
        "from novad.images import decode_image",
        "import novad.images.decode",
        "from novad import images",
        "from ..images import decode",
        "from .. import images",
        "def late():\n    from novad.images import decode_image",
        "if TYPE_CHECKING:\n    from novad.images import decode_image",
    ],
)
def test_each_way_to_import_against_the_arrows_is_seen(source: str) -> None:
    assert wrong_arrows(ROOT / "src/novad/vision/detector.py", source) == ["images"]


def test_a_banned_package_inside_a_function_is_seen() -> None:
    source = "def late():\n    import mlflow.pyfunc\n    from prefect.states import Failed"
    assert banned_packages(ROOT / "src/novad/vision/detector.py", source) == ["mlflow", "prefect"]


LOADS = """
import sys
import {module}
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("novad.vision", ORCHESTRATION | {"pandas"}),
        ("novad.edge.score", ORCHESTRATION | {"torch", "pandas", "pyarrow"}),
        ("novad.images", {"torch", "prefect", "mlflow", "dvc"}),
        ("novad.stages.validate", {"torch", "prefect", "mlflow", "dvc"}),
        ("novad.cli", ORCHESTRATION | {"torch", "pandas"}),
    ],
)
def test_importing_a_room_loads_nothing_that_it_must_not_know(module: str, absent: set[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LOADS.format(module=module)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    loaded = set(ended.stdout.split())
    assert module.split(".")[0] in loaded
    assert loaded & absent == set()
