"""Laws of the house: who imports whom, what an import costs, what is exported, who prints, what is data."""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# From the ground up: a module imports from its own floor or from below. What is private to a room (as
# `trec_bytes` is to `trec`) lives on that room's floor.
ROOMS = [
    "errors cache arrays strict_toml",
    "frames",
    "trec trec_bytes trec_lines trec_read lint ranking collection documents",
    "pool ledger places protocol registry labeling asking composing calibrate calibrator evidence ordinal"
    " examples judgments gains scoring measure draws selection inference grading kernels retrieve dense"
    " provenance steps terrier",
    "fill accounting ray_engine bounds bounds_ap bounds_field bounds_flips bounds_greatest slices verdicts"
    " compare groups plan plan_influence plan_list plan_pool agree agree_pairs agree_ranking agree_rated"
    " agree_tables estimate ppi simulate simulate_conditioned simulate_fills simulate_holes simulate_tally"
    " circularity diagnose diagnose_bias diagnose_scale diagnose_terms diagnose_texts diagnose_words"
    " gullibility",
    "gate gate_agreement gate_config gate_lock gate_output gate_trust saved throughput report report_charts"
    " report_data report_html report_style report_summary report_topics report_trust",
    "demo",
    "cli _help _epilogs _options _render _compared _inputs _agreed _diagnosed _estimated _simulated _terminal"
    " _label_verbs _verdict_verbs _distill_verbs",
]
FLOOR = {f"harness.{room}": n for n, rooms in enumerate(ROOMS) for room in rooms.split()}
FLOOR["harness"] = 0
LABELING = FLOOR["harness.labeling"]  # labelers use nothing above it: a labeler knows nothing of filling
JUDGES = {"labelers.distill.accept"}  # holds a labeler against assessors, as `agree` does

ONLY_IMPORTER = {
    "aiohttp": "labelers.chat_http",
    "deltalake": "harness.ledger",
    "ir_datasets": "harness.collection",
    "ir_measures": "harness.measure",
    "pydantic": "harness.strict_toml",
    "pyterrier": "harness.retrieve",
    "pyterrier_pisa": "harness.retrieve",
    "ray": "harness.ray_engine",
}
AT_MODULE_LEVEL = {"numpy", "polars"}
LIGHT = {
    "harness",
    "harness.cache",
    "harness.cli",
    "harness.errors",
    "harness._distill_verbs",
    "harness._epilogs",
    "harness._help",
    "harness._inputs",
    "harness._label_verbs",
    "harness._options",
    "harness._render",
    "harness._terminal",
    "harness._verdict_verbs",
}
TYPER = {f"harness.{m}" for m in ["cli", "_help", "_options", "_terminal"]}
TYPER |= {f"harness.{m}" for m in ["_label_verbs", "_verdict_verbs", "_distill_verbs"]}
DISTRIBUTION = {"sklearn": "scikit-learn", "yaml": "pyyaml"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(name: str) -> ast.Module:
    path = ROOT.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


MODULES = sorted(name_of(p) for package in ("harness", "labelers") for p in (ROOT / package).rglob("*.py"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(name: str, *, types: bool = False, inside: bool = True) -> Iterator[str]:
    """Modules that a module imports; `types`: also for type checking; `inside`: also in functions."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name} imports relatively"
                whole = [f"{child.module}.{alias.name}" for alias in child.names]
                yield from (m if m in MODULES else str(child.module) for m in whole)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside:
                continue
            elif types or not is_type_checking(child):
                yield from walk(child)

    return walk(tree(name))


def top_level(module: str) -> str:
    return module.partition(".")[0]


def declared() -> dict[str, set[str]]:
    """Distribution names by extra, "" being the base install; an extra has what the extras it names have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"": project["dependencies"], **project["optional-dependencies"]}
    names = {
        extra: {re.split(r"[^\w.-]", d, maxsplit=1)[0] for d in given} for extra, given in wanted.items()
    }
    for extra, given in wanted.items():
        for nested in re.findall(r"stopgap\[([\w,-]+)\]", " ".join(given)):
            names[extra] |= set().union(*(names[n] for n in nested.split(",")))
    return names


# -- imports -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [m for m in MODULES if m.startswith("harness")])
def test_a_module_imports_from_its_own_floor_or_below(name: str) -> None:
    assert name in FLOOR, f"{name} has no floor: give it one in tests/test_laws.py"
    ours = [m for m in imports(name, types=name != "harness") if top_level(m) == "harness"]
    above = [m for m in ours if FLOOR[m] > FLOOR[name]]
    assert not above, f"{name} stands below {above}"


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {m: {i for i in imports(m) if top_level(i) in ("harness", "labelers")} for m in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


@pytest.mark.parametrize("name", [m for m in MODULES if m.startswith("harness")])
def test_harness_reaches_labelers_through_strings_only(name: str) -> None:
    assert "labelers" not in map(top_level, imports(name, types=True))


@pytest.mark.parametrize("name", [m for m in MODULES if m.startswith("labelers")])
def test_labelers_know_signals_but_not_filling(name: str) -> None:
    floor = FLOOR["harness.agree"] if name in JUDGES else LABELING
    above = [m for m in imports(name, types=True) if FLOOR.get(m, 0) > floor]
    assert not above, f"{name} imports {above}"


@pytest.mark.parametrize("library", ONLY_IMPORTER)
def test_few_modules_import_each_outside_library(library: str) -> None:
    importers = {m for m in MODULES if library in map(top_level, imports(m, types=True))}
    assert importers <= set(ONLY_IMPORTER[library].split())


@pytest.mark.parametrize("name", MODULES)
def test_heavy_imports_stand_inside_functions(name: str) -> None:
    allowed = {"harness", "labelers", *sys.stdlib_module_names}
    allowed |= {"typer"} if name in TYPER else set()
    allowed |= AT_MODULE_LEVEL if name not in LIGHT else set()
    allowed |= {"pydantic"} if name == "harness.strict_toml" else set()  # its tables are pydantic's models
    outside = {top_level(m) for m in imports(name, inside=False)} - allowed
    assert not outside, f"{name} imports {outside} when it is imported"


def modules_after(statement: str) -> set[str]:
    # -P: what is installed, not what lies in the working folder
    code = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return {top_level(m) for m in json.loads(done.stdout)} | set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import harness", {"polars", "numpy", "typer", "rich", "difflib"}),
        ("import harness.errors", {"polars", "numpy"}),
        ("import harness.cli", {"polars", "numpy", "rich", "pydantic", "importlib.metadata"}),
        (
            "import harness.trec, harness.pool, harness.measure",
            {"ir_measures", "pandas", "scipy", "pyarrow", "rich"},
        ),
        ("import harness.labeling, harness.ledger, harness.registry", {"deltalake", "onnxruntime", "torch"}),
    ],
)
def test_what_an_import_does_not_bring(statement: str, absent: set[str]) -> None:
    assert not modules_after(statement) & absent


# -- dependencies --------------------------------------------------------------------------------------------


def test_every_outside_import_is_declared() -> None:
    known = {re.sub(r"[-_.]+", "-", d).lower() for names in declared().values() for d in names}
    found = {top_level(i) for m in MODULES for i in imports(m)}
    outside = found - {"harness", "labelers", *sys.stdlib_module_names}
    assert {DISTRIBUTION.get(i, i.replace("_", "-")) for i in outside} <= known


def missing_extras() -> Iterator[tuple[str, str, str]]:
    for name in MODULES:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtra":
                arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
                if len(arguments) == 2:
                    yield name, *arguments


def test_a_missing_extra_names_one_that_brings_the_package() -> None:
    extras = declared()
    wrong = [
        (m, package, extra) for m, package, extra in missing_extras() if package not in extras.get(extra, ())
    ]
    assert not wrong
    assert list(missing_extras())


# -- exports -------------------------------------------------------------------------------------------------


def public_names(name: str) -> list[str] | None:
    for node in tree(name).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [element.value for element in node.value.elts if isinstance(element, ast.Constant)]
    return None


@pytest.mark.parametrize("name", [m for m in MODULES if "." in m])
def test_what_a_module_takes_from_another_is_on_that_one_s_list(name: str) -> None:
    assert public_names(name) is not None, f"{name} has no __all__"
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES and "." in node.module:
            listed = set(public_names(node.module) or ())
            assert {alias.name for alias in node.names} <= listed, node.module


@pytest.mark.parametrize("name", [m for m in MODULES if "." in m])
def test_every_name_on_a_module_s_list_is_there(name: str) -> None:
    needs = {top_level(m) for m in imports(name, inside=False)} - {
        "harness",
        "labelers",
        *sys.stdlib_module_names,
    }
    for package in needs:
        pytest.importorskip(package)
    module = import_module(name)
    names = public_names(name) or []
    assert all(hasattr(module, n) for n in names)
    assert len(names) == len(set(names))


def test_the_package_exports_what_its_type_checking_block_says() -> None:
    import harness

    block = next(node for node in tree("harness").body if is_type_checking(node))
    named = [(str(n.module), a) for n in ast.walk(block) if isinstance(n, ast.ImportFrom) for a in n.names]
    assert all(alias.name == alias.asname for _, alias in named), "a re-export is written `name as name`"
    functions = {alias.name: module for module, alias in named if module != "harness"}
    modules = {alias.name for module, alias in named if module == "harness"}
    assert sorted([*functions, *modules]) == sorted(harness.__all__)
    assert not set(functions) & {m.partition(".")[2] for m in MODULES}, (
        "a function would hide a module or the reverse"
    )
    for name, module in functions.items():
        assert name in (public_names(module) or ())


@pytest.mark.parametrize("last_first", [False, True])
def test_every_export_resolves_whatever_is_imported_first(last_first: bool) -> None:
    code = (
        "import harness, types\n"
        f"names = sorted(harness.__all__, reverse={last_first})\n"
        "kinds = {n: isinstance(getattr(harness, n), types.ModuleType) for n in names}\n"
        "assert kinds == {n: isinstance(getattr(harness, n), types.ModuleType) for n in names}\n"
        "assert set(names) <= set(dir(harness))\n"
        "from harness import *\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_an_unknown_export_is_an_attribute_error_with_the_near_names() -> None:
    import harness

    with pytest.raises(AttributeError, match="read_runs"):
        harness.read_rums  # noqa: B018


# -- printing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [m for m in MODULES if m != "harness._terminal"])
def test_only_the_command_line_prints(name: str) -> None:
    calls = [node.func for node in ast.walk(tree(name)) if isinstance(node, ast.Call)]
    said = {ast.unparse(call) for call in calls}
    printers = {"print", "pprint", "typer.echo", "click.echo", "sys.stdout.write", "sys.stderr.write"}
    assert not said & printers


# -- data folders --------------------------------------------------------------------------------------------

MANIFEST = ["path", "sha256", "rows", "topics", "source", "licence", "command"]


def data_files(folder: str) -> list[Path]:
    return [
        p for p in (ROOT / folder).rglob("*") if p.is_file() and p.name not in ("MANIFEST.tsv", ".gitkeep")
    ]


@pytest.mark.parametrize("folder", ["runs", "qrels"])
def test_data_folders_hold_data_and_their_manifest_is_true(folder: str) -> None:
    files = data_files(folder)
    if not files:
        pytest.skip(f"{folder}/ is empty")
    assert not [p for p in files if p.suffix in (".py", ".pyi", ".so")]
    with (ROOT / folder / "MANIFEST.tsv").open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = list(reader)
    assert reader.fieldnames == MANIFEST
    assert sorted(row["path"] for row in rows) == sorted(
        p.relative_to(ROOT / folder).as_posix() for p in files
    )
    for row in rows:
        path = ROOT / folder / row["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"], row["path"]
        assert row["source"], row["path"]
        assert row["licence"], row["path"]
        assert row["command"], row["path"]
        if row["rows"] or row["topics"]:  # a metadata twin has neither
            assert counted(path) == (int(row["rows"]), int(row["topics"])), row["path"]


def counted(path: Path) -> tuple[int, int]:
    """Rows and topics of a run or qrels."""
    if path.suffix == ".parquet":
        import polars as pl

        frame = pl.read_parquet(path, columns=["query_id"])
        return frame.height, frame["query_id"].n_unique()
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
    return len(lines), len({line.split()[0] for line in lines})


def test_the_packages_are_the_two_that_are_named() -> None:
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert packages == {"harness", "labelers"}
    assert not (ROOT / "conftest.py").exists(), "a root conftest would make the tests import the checkout"
