"""Programs of `torch.export`: which networks are loaded, and that nothing in a program runs except operators."""

import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.errors import ModelPackageError
from tests.support.networks import thousand_classes
from worker.inference.packages.exported_program import load_exported

CPU = torch.device("cpu")
SIZE = (3, 32, 32)


class ComputedSizes(nn.Module):
    """With computed sizes, a tensor that it creates, a string argument, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.register_buffer("scale", torch.arange(8.0))

    def forward(self, pictures: Tensor) -> Tensor:
        batch = pictures.shape[0]
        features = functional.pad(
            functional.interpolate(self.convolution(pictures), scale_factor=0.5), (1,) * 4, "reflect"
        )
        features = torch.einsum("bchw,c->bchw", features, self.scale)
        means = features.reshape(batch * 8, -1).mean(1).view(batch, 8)
        outputs: Tensor = self.linear(means + torch.arange(8)) + torch.arange(batch)[:, None]
        return outputs


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, 5)
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2)

    def forward(self, pictures: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.blocks(self.patches(pictures).flatten(2).transpose(1, 2))[:, 0])
        return outputs


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)

    def forward(self, pictures: Tensor) -> Tensor:
        means = self.linear(pictures.mean((2, 3)))
        outputs: Tensor = torch.cond(means.sum() > 0, lambda it: it + 1, lambda it: it - 1, (means,))
        return outputs


def exported(network: nn.Module, path: Path, *, batch_max: int | None = None) -> Path:
    shapes = ({0: torch.export.Dim("batch", max=batch_max)},)
    network.requires_grad_(requires_grad=False)
    torch.export.save(torch.export.export(network, (torch.zeros(2, *SIZE),), dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("kind", [ComputedSizes, Attentive, Conditional, thousand_classes])
def test_a_program_gives_the_same_as_its_network(tmp_path: Path, kind: Callable[[], nn.Module]) -> None:
    network = kind().eval()
    loaded = load_exported(exported(network, tmp_path / "program.pt2"), CPU)
    inputs = torch.rand(7, *SIZE)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(inputs), network(inputs))


def test_a_program_creates_its_tensors_on_the_device(tmp_path: Path) -> None:
    """On the device `meta`, which computes nothing and exists on every machine."""
    loaded = load_exported(exported(ComputedSizes().eval(), tmp_path / "program.pt2"), torch.device("meta"))
    assert loaded(torch.rand(7, *SIZE, device="meta")).shape == (7, 5)


@pytest.mark.parametrize(("batch_max", "is_loaded"), [(32, False), (255, False), (256, True), (None, True)])
def test_a_program_that_does_not_accept_a_full_batch_is_refused(
    tmp_path: Path, batch_max: int | None, *, is_loaded: bool
) -> None:
    path = exported(ComputedSizes().eval(), tmp_path / "program.pt2", batch_max=batch_max)
    if is_loaded:
        load_exported(path, CPU)
        return
    with pytest.raises(
        ModelPackageError, match=rf"^{path}: accepts at most {batch_max} images at a time; export it for 256 "
    ):
        load_exported(path, CPU)


def with_graph(path: Path, graph: Any) -> Path:
    """A copy of a program with another graph."""
    source, changed = zipfile.ZipFile(io.BytesIO(path.read_bytes())), path.with_name("changed.pt2")
    with zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            is_graph = name.endswith("models/model.json")
            target.writestr(name, json.dumps(graph) if is_graph else source.read(name))
    return changed


def graph_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as program:
        (name,) = (name for name in program.namelist() if name.endswith("models/model.json"))
        return json.loads(program.read(name))


def strings(value: Any, key: str = "") -> Iterator[tuple[str, Callable[[str], None]]]:
    """For each string within a value: the key that it or its list has, and a function that replaces it."""
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for place, part in list(places):
        name = place if isinstance(place, str) else key
        if isinstance(part, str):
            yield name, partial(value.__setitem__, place)
        yield from strings(part, name)


@pytest.mark.parametrize("kind_of_network", [ComputedSizes, Conditional])
def test_no_string_in_a_graph_is_run(tmp_path: Path, kind_of_network: Callable[[], nn.Module]) -> None:
    """Code in place of any string is refused, or stays a string."""
    path, mark = exported(kind_of_network().eval(), tmp_path / "program.pt2"), tmp_path / "mark"
    call = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    kinds = {name for name, _ in strings(graph_of(path))}
    refused = set[str]()
    for kind in sorted(kinds):
        for code in (call, f"a={call}", f"torch.{call}", f"a'); {call} #", f'a"); {call} #'):
            graph = graph_of(path)
            for name, replace in strings(graph):
                if name == kind:
                    replace(code)
            with suppress(RuntimeError):  # as an argument, an operator may refuse the string
                try:
                    load_exported(with_graph(path, graph), CPU)(torch.rand(2, *SIZE))
                except ModelPackageError:
                    refused.add(kind)
            assert not mark.exists(), (kind, code)
    assert refused >= {"expr_str", "target", "name", "parameter_name", "in_spec", "out_spec"}


def test_a_size_is_parsed_as_sympy_parses_it(tmp_path: Path) -> None:
    """sympy joins lines first, so that a number after a line break becomes an octal escape."""
    path, mark = exported(ComputedSizes().eval(), tmp_path / "program.pt2"), tmp_path / "mark"
    code = f"s0==1 or __import__('pathlib').Path({str(mark)!r}).touch()"
    written = "'s" + "".join(f"\\\n{ord(letter):03o}" for letter in code[1:]) + "'"
    for size in (f"Abs({written})", f"Symbol({written})"):
        graph = graph_of(path)
        for name, replace in strings(graph):
            if name == "expr_str":
                replace(size)
        with pytest.raises(ModelPackageError, match="the graph contains the size"):
            load_exported(with_graph(path, graph), CPU)
        assert not mark.exists()


@pytest.mark.parametrize("where", ["in_spec", "out_spec"])
@pytest.mark.parametrize("wrapped", [lambda it: it, lambda it: [it], lambda it: {"metadata": it}])
def test_names_of_inputs_and_outputs_import_nothing(
    tmp_path: Path, where: str, wrapped: Callable[[object], object]
) -> None:
    """torch has a notation for enums, which it imports."""
    path = exported(ComputedSizes().eval(), tmp_path / "program.pt2")
    graph, enum = graph_of(path), {"__enum__": True, "fqn": "antigravity:it", "name": "it"}
    spec = {"type": "builtins.dict", "context": json.dumps(wrapped(enum)), "children_spec": []}
    for name, replace in strings(graph):
        if name == where:
            replace(json.dumps([1, spec]))
    with pytest.raises(ModelPackageError, match="the network's input or output has the names"):
        load_exported(with_graph(path, graph), CPU)
    assert "antigravity" not in sys.modules


class Alternating(nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3)) * (1 if pictures.shape[0] % 2 == 0 else 3)


def test_a_network_for_only_some_batch_sizes_is_refused(tmp_path: Path) -> None:
    path, shapes = tmp_path / "program.pt2", ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(Alternating(), (torch.zeros(2, *SIZE),), dynamic_shapes=shapes), path)
    with pytest.raises(ModelPackageError, match=r"the network accepts only some batch sizes: .*\[0\] % 2\) == 0"):
        load_exported(path, CPU)


class UnusualNames(nn.Module):
    """With names and sizes that are unusual but not code."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"a b/c-d's (ä)": nn.Linear(3, 5)})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        outputs = self.parts["a b/c-d's (ä)"](pictures.mean((2, 3)))
        return {"of the class's": outputs.masked_fill(outputs > 0, -torch.inf) / pictures.shape[0] ** 0.5}


def test_names_may_have_any_letters(tmp_path: Path) -> None:
    network = UnusualNames()
    loaded = load_exported(exported(network, tmp_path / "program.pt2"), CPU)
    inputs = torch.rand(7, *SIZE)
    torch.testing.assert_close(loaded(inputs), network(inputs))


@pytest.mark.parametrize(
    "operator",
    [
        "torch.os.system",
        "torch.load",
        "torch.ops.load_library.__call__",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten._print.default",
        "torch.ops.aten._reshape_alias.default",
        "torch.ops.aten.adaptive_max_pool2d_backward.default",
        "torch.ops.aten._sparse_coo_tensor_unsafe.default",
        "torch.ops.aten.linear.__class__",
        "torch.ops.aten.linear.py_impl",
        "torch.ops.aten.no_such.default",
        "torch.ops.profiler._record_function_enter.default",
        "_operator.attrgetter",
        "math.__loader__",
        "#anything:else",
        "exec",
    ],
)
def test_anything_but_an_operator_is_not_called(tmp_path: Path, operator: str) -> None:
    path = exported(ComputedSizes().eval(), tmp_path / "program.pt2")
    graph = graph_of(path)
    graph["graph_module"]["graph"]["nodes"][0]["target"] = operator
    with pytest.raises(ModelPackageError, match=f"the graph calls '{operator}', which is not an allowed operator"):
        load_exported(with_graph(path, graph), CPU)


@pytest.mark.parametrize(
    "size",
    [
        "exec('1')",
        "Symbol('x; import os')",
        "Symbol.__class__",
        "[1][0]",
        "lambda: 1",
        "(" * 500,
        "1 if 1 else 1",
        "''",
    ],
)
def test_anything_but_a_size_is_not_evaluated(tmp_path: Path, size: str) -> None:
    path = exported(ComputedSizes().eval(), tmp_path / "program.pt2")
    graph = graph_of(path)
    for name, replace in strings(graph):
        if name == "expr_str":
            replace(size)
    with pytest.raises(ModelPackageError, match=r"the graph contains the size .*, which could be code"):
        load_exported(with_graph(path, graph), CPU)


@pytest.mark.parametrize(
    "kind", ["collections.defaultdict", "torch.return_types.max", "collections.namedtuple", "anything"]
)
def test_inputs_and_outputs_are_only_tensors(tmp_path: Path, kind: str) -> None:
    path = exported(ComputedSizes().eval(), tmp_path / "program.pt2")
    text = json.dumps(graph_of(path)).replace("builtins.dict", kind)
    with pytest.raises(ModelPackageError, match=f"the network's input or output is a {kind}; only tensors are allowed"):
        load_exported(with_graph(path, json.loads(text)), CPU)
