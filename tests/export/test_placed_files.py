"""What lies in a repository: it loads in the oldest runtime that is promised, and tells of no machine."""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from export.demo.serving import REPOSITORY
from export.families import DEFAULT_SET, FAMILIES
from export.graph import Arrays, Graph
from export.half import Precision
from export.onnx_writing import converted
from export.parity import difference
from export.weights import DEMO_WEIGHTS, Options

# What Triton 24.10 brings; it needs NumPy 1.
OLDEST = ("onnxruntime==1.19.2", "numpy<2")
# Runs every case of every file that is named on standard input.
OLD_RUNNER = """
import json, sys
import numpy, onnxruntime
assert onnxruntime.__version__ == "1.19.2", onnxruntime.__version__
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
options.intra_op_num_threads = 1
for line in sys.stdin:
    path, cases = json.loads(line)
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for case in cases:
            names = [output.name for output in session.get_outputs()]
            with numpy.load(case) as inputs:
                answers = session.run(names, dict(inputs))
            numpy.savez(case + ".answers.npz", **dict(zip(names, answers)))
    except Exception as error:
        print(path, error)
"""
# Of largest values: the two runtimes add up in other orders, and round halves at other places.
TOLERANCES = {
    None: 1e-3,
    Precision.fp32: 1e-3,
    Precision.fp16_weights: 1e-3,
    Precision.fp16: 5e-2,
    Precision.int8: 5e-2,
}


@cache
def graphs(weights: str) -> dict[str, Graph]:
    """The graphs of all families, by model: what they are asked for the comparison."""
    families = FAMILIES if weights == "random" else DEFAULT_SET
    options = Options(weights=weights, size="tiny" if weights == "random" else "full")
    exports = [FAMILIES[family].prepare(options) for family in families]
    return {graph.model: graph for export in exports for graph in export.graphs}


@pytest.fixture(scope="module")
def files(
    tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Graph, float]]:
    """Every file by a name: the demo's, and the toys' at every precision."""
    folder = tmp_path_factory.mktemp("halves")
    found = {}
    for model, graph in graphs("demo").items():
        found[f"demo {model}"] = (REPOSITORY / model / "1" / "model.onnx", graph, TOLERANCES[None])
    for model, graph in graphs("random").items():
        path = tiny_repository / model / "1" / "model.onnx"
        for precision in Precision:
            name = f"{model} {precision.value}"
            if precision is Precision.fp32:
                found[name] = (path, graph, TOLERANCES[precision])
                continue
            if precision is Precision.int8 and graph.int8_gate is None:
                continue
            half = folder / f"{model}-{precision.value}.onnx"
            onnx.save(converted(graph, path, precision), str(half))
            found[name] = (half, graph, TOLERANCES[precision])
    return found


@pytest.fixture(scope="module")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the oldest runtime; skips where it cannot be installed."""
    folder = tmp_path_factory.mktemp("oldest")
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", "3.11", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [*uv, "pip", "install", "--quiet", "--python", str(python), *OLDEST]
    result = subprocess.run(install, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"cannot install {OLDEST[0]}: {result.stderr.strip().splitlines()[-1]}")
    return python


def answers(path: Path, inputs: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.mark.long
def test_the_oldest_runtime_answers_as_the_newest(
    files: dict[str, tuple[Path, Graph, float]], old_python: Path, tmp_path: Path
) -> None:
    asked, lines = {}, []
    for name, (path, graph, _) in files.items():
        case = tmp_path / f"{name.replace(' ', '-')}.npz"
        # The smallest case: it is the graph that is looked at, not its sizes.
        inputs = min(graph.cases, key=lambda case: sum(value.size for value in case.values()))
        np.savez(case, **inputs)  # type: ignore[arg-type]
        asked[name] = (case, inputs)
        lines.append(json.dumps([str(path), [str(case)]]))
    result = subprocess.run(
        [str(old_python), "-c", OLD_RUNNER],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == ""
    for name, (path, _, tolerance) in files.items():
        case, inputs = asked[name]
        with np.load(f"{case}.answers.npz") as old:
            for output, new in answers(path, inputs).items():
                largest = np.abs(new[np.isfinite(new)]).max()
                assert difference(old[output], new) <= tolerance * largest, (name, output)


def test_files_are_of_versions_that_it_reads(files: dict[str, tuple[Path, Graph, float]]) -> None:
    for name, (path, _, _) in files.items():
        model = onnx.load(str(path), load_external_data=False)
        assert model.ir_version <= 10, name
        assert all(opset.version <= 20 for opset in model.opset_import if opset.domain in {"", "ai.onnx"}), (
            name
        )


# Longer than what weights hold by chance. Each begins with a literal, for which Python looks fast: what must
# stand before it is looked for afterwards.
TRACES = [
    re.compile(pattern)
    for pattern in (
        rb"\.py\b(?<=[\w/-]{4}\.py)",
        rb"site-packages",
        rb"/(?<![\w.]/)(?:home|root|usr|tmp|opt|work|mnt|Users)/",
    )
]


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def test_no_file_tells_of_the_machine_that_made_it(tiny_repository: Path) -> None:
    seen = 0
    for folder in (tiny_repository, REPOSITORY, DEMO_WEIGHTS):
        for path, data in contents(folder):
            assert not [found for trace in TRACES for found in trace.findall(data)], path
            seen += 1
        # A gzip header may name the file that was packed.
        assert not [path for path in folder.rglob("*.gz") if path.read_bytes()[3] & 0x08]
    assert seen > 50


def test_nothing_but_models_lies_in_an_exported_repository(tiny_repository: Path) -> None:
    """As NVIDIA's container wants it: Triton takes every folder for a model."""
    for folder in (tiny_repository, REPOSITORY):
        for model in folder.iterdir():
            names = {path.name for path in model.iterdir()}
            assert {"1", "config.pbtxt"} <= names <= {"1", "config.pbtxt", "tokenizer.json", "warmup"}
            assert [path.name for path in (model / "1").iterdir()] == ["model.onnx"]
