"""A module imports lower layers or its own one, never in a circle; heavy libraries load only where they are used."""

import ast
import graphlib
from pathlib import Path

import dsl

ROOT = Path(dsl.__file__).parent
FRONT = ["dsl.cli", "dsl.repl", "dsl.lsp", "dsl.notebook", "dsl.bench", "dsl.__main__", "dsl"]
LAYERS = [["dsl.colors", "dsl.record"], ["dsl.errors"], ["dsl.scripts"],
          ["dsl.error_index"], ["dsl.ir"], ["dsl.machine"], ["dsl.ops"], ["dsl.passes"], ["dsl.syntax"],
          ["dsl.loops"], ["dsl.backends"], ["dsl.pipeline"], ["dsl.runtime"], ["dsl.session"],
          ["dsl.contents", "dsl.function", "dsl.model", "dsl.show", "dsl.highlight", "dsl.help"],
          FRONT]  # fmt: skip
HEAVY = {"click", "cupy", "llvmlite", "matplotlib", "prompt_toolkit", "pyarrow", "rich", "safetensors", "scipy"}

FILES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def layer(module: str) -> int:
    """The level of a module: its own, or else that of the package below `dsl` that it is in."""
    level = LEVEL.get(module, LEVEL.get(".".join(module.split(".")[:2])))
    assert level is not None, f"{module} has no layer: add it to LAYERS"
    return level


def imports(module: str, top_only: bool = False) -> dict[str, int]:
    """What a module imports, function-local and type-checking imports too unless `top_only`, with the line."""
    found: dict[str, int] = {}
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]

    def visit(node: ast.AST) -> None:
        skipped = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        skipped |= isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if top_only and skipped:
            return
        if isinstance(node, ast.Import):
            found.update({alias.name: node.lineno for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            outer = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*outer, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]  # a submodule, or a name in `base`
            found.update({name if name in FILES else base: node.lineno for name in names})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(FILES[module].read_text(encoding="utf-8")))
    return found


def test_imports_go_down():
    upward = [
        f"{FILES[module].relative_to(ROOT.parent)}:{line} imports {target}, of a higher layer"
        for module in FILES
        for target, line in imports(module).items()
        if target.split(".")[0] == "dsl" and layer(target) > layer(module)
    ]
    assert not upward, "\n".join(upward)


def test_no_import_cycles():
    graph = {module: set(imports(module)) & set(FILES) - {module} for module in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_heavy_imports_are_local():
    heavy = [
        f"{FILES[module].relative_to(ROOT.parent)}:{line} imports {target} at module level"
        for module in FILES
        if ".".join(module.split(".")[:2]) not in FRONT[:4]
        for target, line in imports(module, top_only=True).items()
        if target.split(".")[0] in HEAVY
    ]
    assert not heavy, "\n".join(heavy)
