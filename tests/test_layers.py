"""The layers of the house: core < datasets < runs < study < commands < notebooks. Nothing imports
from a layer above its own, not inside a function and not by a string either.

    python -m tests.test_layers     # modules and lines of each layer, and how often it imports from
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("core", "datasets", "runs", "study", "commands", "notebooks", "tests")
_MODULE = re.compile(r"(?:ipslib|tests)(?:\.\w+)+")
_CODE = re.compile(r"^\s*(?:from|import)\s+(ipslib[\w.]*|tests[\w.]*)", re.MULTILINE)


def sources() -> dict[str, Path]:
    """Every module of the package, and every notebook, by name."""
    files = [*(ROOT / "ipslib").rglob("*.py"), *(ROOT / "notebooks").glob("*.py")]
    names = [path.relative_to(ROOT).with_suffix("").parts for path in files]
    return {
        ".".join(name).removesuffix(".__init__"): path
        for name, path in zip(names, files, strict=True)
    }


def layer_of(module: str) -> int:
    """The command line counts as a command; names taken from the package itself are its face,
    which is for users and so above all that it shows."""
    top, _, rest = module.partition(".")
    if top != "ipslib":
        return LAYERS.index(top)
    folder = rest.split(".")[0]
    if folder in ("", "__main__"):
        return LAYERS.index("commands")
    return LAYERS.index(folder) if folder in LAYERS else 0


def imports(source: str, modules: set[str]) -> Iterator[str]:
    """Our own modules that a source imports or names as a string, such as after `-m`."""
    tree = ast.parse(source)
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # `import ipslib` alone gives its version, not its face.
            yield from (each.name for each in node.names if each.name != "ipslib")
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole module"
            for each in node.names:
                inner = f"{node.module}.{each.name}"
                yield inner if inner in modules else node.module
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                yield from filter(_MODULE.fullmatch, [node.value])
                yield from _CODE.findall(node.value)
        elif isinstance(node, ast.List | ast.Tuple | ast.Call):
            parts = node.args if isinstance(node, ast.Call) else node.elts
            texts = [each.value if isinstance(each, ast.Constant) else None for each in parts]
            if ("-m", "ipslib") in pairwise(texts):
                yield "ipslib.__main__"


def upward(module: str, source: str, modules: set[str]) -> set[tuple[str, str]]:
    own = {name for name in imports(source, modules) if name.split(".")[0] in ("ipslib", "tests")}
    return {(module, name) for name in own if layer_of(name) > layer_of(module)}


def arrows() -> Counter[tuple[str, str]]:
    """How often modules of a layer import from another one; the face, which names what it shows of
    every layer, has no part in it."""
    files, counts = sources(), Counter()
    for module, path in files.items():
        for name in imports(path.read_text(encoding="utf-8"), set(files)):
            if module != "ipslib" and name.split(".")[0] == "ipslib":
                counts[LAYERS[layer_of(module)], LAYERS[layer_of(name)]] += 1
    return counts


def overview() -> str:
    files, counts = sources(), arrows()
    lines = [f"{'':10} modules  lines  imports: " + "  ".join(LAYERS[:-2])]
    for layer in LAYERS[:-1]:
        own = [path for name, path in files.items() if LAYERS[layer_of(name)] == layer]
        n_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in own)
        cells = [f"{counts[layer, each] or '':>{len(each)}}" for each in LAYERS[:-2]]
        lines.append(f"{layer:10} {len(own):7}  {n_lines:5}           " + "  ".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def test_nothing_imports_upwards():
    files = sources()
    for module, path in files.items():
        if module != "ipslib":  # the face names what it shows, of every layer
            assert not upward(module, path.read_text(encoding="utf-8"), set(files))


@pytest.mark.parametrize(
    "source",
    [
        "from ipslib.study.tables import show",
        "from ipslib.study import tables",
        "from ipslib import IPSNet",
        "def f():\n    import ipslib.commands.sweep",
        "import_module('ipslib.study.tables')",
        "run([sys.executable, '-m', 'ipslib', 'queue'])",
        "run(sys.executable, '-m', 'tests.benchmarks.step')",
        "PROGRAM = 'import sys\\nfrom ipslib.commands import queue\\n'",
    ],
)
def test_every_way_up_is_seen(source):
    assert upward("ipslib.runs.pool", source, {"ipslib.study.tables"})


@pytest.mark.parametrize(
    "source",
    [
        "import ipslib\nfrom ipslib.config import RunConfig\nimport ipslib.datasets.registry",
        "'''See ipslib.study.tables.'''\nraise Error('call: python -m ipslib slides prepare')",
    ],
)
def test_ways_down_and_sentences_are_none(source):
    assert not upward("ipslib.runs.pool", source, set())


def test_the_drawing_of_the_layers_is_that_of_the_imports():
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^    (\w+) --> (\w+)$", page, re.MULTILINE)
    assert set(drawn) == {pair for pair in arrows() if pair[0] != pair[1]}


if __name__ == "__main__":
    print(overview())
