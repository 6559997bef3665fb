"""The house keeps its shape: imports run one way, each room says what it is, and nothing private is in the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
SOURCE = REPO / "src" / "salad"

# From the ground up; a room imports from itself and from what stands before it.
ORDER = (
    "after_import",
    "errors",
    "interrupts",
    "files",
    "disk",
    "tally",
    "workers",
    "ray_cluster",
    "ray_workers",
    "randomness",
    "recipe",
    "ranks",
    "take_home",
    "asset_table",
    "assets",
    "derived",
    "fingerprint",
    "texts",
    "speech",
    "synthesize",
    "model",
    "interleave",
    "distill",
    "plan",
    "measure",
    "select",
    "report",
    "marks",
    "run",
    "natural_speech",
    "deviations",
    "card",
    "spoken",
    "training",
    "student",
    "probing",
    "measuring",
    "rollouts",
    "stage_one",
    "stage_two",
    "stage_three",
    "taking_over",
    "serve",
    "answering",
    "probed",
    "sides",
    "results",
    "verbs",
    "steps",
    "pushing",
    "clean",
    "doctor",
    "display",
    "cli",
    "__main__",
)
REPORT_MAY_IMPORT = {"errors", "files", "report"}  # it draws results and knows nothing of how they are made
MAX_TEST_LINES = 450
LOCKED_EXTRAS = ("dev", "ray", "serve", "chat", "mic")
# What a distribution is imported as, where the two names differ.
IMPORT_NAMES = {
    "faster_whisper": "faster-whisper",
    "piper": "piper-tts",
    "sentence_transformers": "sentence-transformers",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def module_name(path: Path) -> str:
    parts = ("salad", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imported_modules(source: str, name: str = "") -> set[str]:
    """Every module that `source` imports, wherever the import stands; `from salad import x` counts as salad.x."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports by a relative path; write it out from salad"
            base = node.module or ""
            modules = {f"{base}.{alias.name}" for alias in node.names} & MODULES.keys()
            found.update(modules)
            if len(modules) < len(node.names):  # some of the names are definitions of the module itself
                found.add(base)
    return found


def room(module: str) -> str | None:
    """The room of a module of ours: salad.model.encoder → model; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def wrong_way(name: str, source: str) -> list[str]:
    """The imports in module `name` that run against the order."""
    here = room(name)
    if here is None:  # the package itself registers the model with transformers' Auto classes
        return []
    problems = []
    for target in sorted(imported_modules(source, name)):
        there = room(target)
        if not target.startswith("salad.") or there is None:
            continue
        allowed = REPORT_MAY_IMPORT if here == "report" else set(ORDER[: ORDER.index(here) + 1])
        if there not in allowed:
            problems.append(f"{name} imports {target}")
    return problems


def tracked_files() -> list[Path]:
    """The files git knows; all but the caches where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPO, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [path for name in listed.stdout.split("\0") if name and (path := REPO / name).is_file()]


def test_every_room_has_its_place_in_the_order():
    strangers = {room(name) for name in MODULES} - {None, *ORDER}
    assert not strangers, f"not in the order of imports: {sorted(strangers)}; give each its place in ORDER, one way"


def test_imports_run_one_way():
    problems = [problem for name, path in MODULES.items() for problem in wrong_way(name, path.read_text())]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("salad.interleave.spans", "from salad.distill import loop"),
        ("salad.errors", "import salad.files"),
        ("salad.report.page", "from salad.measure.bootstrap import interval"),
        ("salad.model.encoder", "def late():\n    from salad.cli import main"),
    ],
)
def test_an_import_against_the_order_is_seen(name, source):
    assert wrong_way(name, source)


def test_modules_do_not_import_in_a_circle():
    graph = {
        name: (imported_modules(path.read_text(), name) & MODULES.keys()) - {name} for name, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("imports in a circle: " + " → ".join(error.args[1]))


def test_every_module_says_what_it_is():
    for name, path in MODULES.items():
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        assert len(said.split()) >= 4, f"{name} has no docstring that says what it is"
        assert "TODO" not in said, f"{name}: its docstring is still to be written"


def test_third_party_imports_are_declared():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [line for extra in project["optional-dependencies"].values() for line in extra]
    declared = {re.split(r"[\[<>=!~; ]", line)[0].lower().replace("_", "-") for line in wanted}
    for name, path in MODULES.items():
        for target in imported_modules(path.read_text(), name):
            top = target.split(".")[0]
            if top == "salad" or top in sys.stdlib_module_names:
                continue
            wanted = IMPORT_NAMES.get(top, top.lower().replace("_", "-"))
            assert wanted in declared, f"{name} imports {top}, but pyproject.toml does not declare {wanted}"


def locked(name: str) -> dict[str, str]:
    lines = [line for line in (REPO / name).read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in lines), (
        f"{name} holds something else than name==version"
    )
    return {pin.split("==")[0].lower().replace("_", "-"): pin.split("==")[1] for pin in lines}


def test_the_lock_holds_every_dependency():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [line for name in LOCKED_EXTRAS for line in extras[name]]
    names = {re.split(r"[\[<>=!~; ]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names <= locked("requirements.lock").keys()
    assert names <= locked("requirements-bench.lock").keys()


def test_both_locks_agree_on_what_numbers_depend_on():
    ours, bench = locked("requirements.lock"), locked("requirements-bench.lock")
    for name in ("torch", "transformers", "peft", "numpy", "ctranslate2", "lhotse"):
        assert ours[name] == bench[name]


PRIVATE = {
    "a home folder": re.compile(r"(?<![\w.~}*-])/(?:root|home/\w+|Users/\w+)/"),
    "a package registry's host": re.compile(
        r"\b(?:[\w-]+\.)*(?:py" + r"pi|python" + r"hosted|npm" + r"js|deb\.deb" + r"ian)\.(?:org|com)\b"
    ),
    "a file:// index": re.compile(r"file" + r":///\w"),
}


def test_nothing_private_is_tracked():
    problems = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # audio and pictures
            continue
        for what, pattern in PRIVATE.items():
            problems += [f"{path.relative_to(REPO)}: {what}: {hit.group()}" for hit in pattern.finditer(text)]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("what", "text"),
    [("a home folder", "see /ro" + "ot/notes"), ("a package registry's host", "https://py" + "pi.org/x")],
)
def test_what_is_private_is_recognized(what, text):
    assert PRIVATE[what].search(text)


def test_test_files_are_short_enough_to_read():
    for path in sorted((REPO / "tests").rglob("test_*.py")):
        num_lines = len(path.read_text().splitlines())
        assert num_lines <= MAX_TEST_LINES, f"{path.name} has {num_lines} lines; split it by what it tests"
