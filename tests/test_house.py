"""Ratchets against bad habits: file length, import direction, paths in PAPER.md, what may not be used, lint."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mind_distill"
FILES = sorted(PACKAGE.rglob("*.py"))
# A room may import from the rooms of its own layer and of the layers below it.
LAYERS = [
    {"cli"},
    {"commands", "quickstart"},
    {"comparison"},
    {"pipeline"},
    {"training", "evaluation", "report", "latent", "explore"},
    {"methods", "corpus", "tasks", "generation", "student"},
    {"metanet", "losses", "state"},
    {"records", "config", "runs", "errors", "locks", "terminal", "threads", "processes"},
]
# Within the bottom of the student's room: where packaged models lie concerns the encoder as well.
ALLOWED = {
    ("metanet", "student.packages"),
    ("runs", "report.run"),  # Run.report(), imported when called
    ("student", "tasks.prompts"),
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    (found,) = [i for i, names in enumerate(LAYERS) if name in names]
    return found


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))], ids=str
)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name != "__init__.py"], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_point_one_way(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mind_distill."):
            target = (node.module or "").removeprefix("mind_distill.")
            own, other = room(path), target.split(".")[0]
            assert layer(other) >= layer(own) or (own, target) in ALLOWED, f"{path.name} imports {target}"


def test_every_path_in_paper_md_exists() -> None:
    text = (ROOT / "PAPER.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`((?:mind_distill|tests|tools|benchmarks|docs)/[\w./-]+)`", text))
    assert len(paths) > 15
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]


def test_nothing_is_ever_unpickled_or_loaded_unsafely() -> None:
    forbidden = re.compile(
        r"\b(pickle|dill|joblib|register_for_checkpointing|allow_pickle|torch\.load|trust_remote_code)\b|yaml\.load\((?!text, _Loader)"
    )
    for path in FILES:
        found = forbidden.findall(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def test_every_module_class_and_public_function_of_some_length_says_what_it_is() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        for node in tree.body:
            short = isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno < 10
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not short:
                assert ast.get_docstring(node), f"{path.relative_to(ROOT)}: {node.name}"


def test_the_report_and_the_run_reader_import_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, mind_distill.report.run, mind_distill.runs, mind_distill.cli, mind_distill.tasks.answers;"
        "assert not {'torch', 'transformers'} & set(sys.modules), sorted({'torch', 'transformers'} & set(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ruff_finds_nothing() -> None:
    for arguments in (["check", "."], ["format", "--check", "."]):
        done = subprocess.run([sys.executable, "-m", "ruff", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_finds_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
