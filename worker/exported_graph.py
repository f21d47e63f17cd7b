"""What the graph of a `.pt2` may say: names, numbers, and operators of torch that compute.

torch evaluates expressions of sizes, looks its operators up by any name below `torch`, and writes Python of what has a
name. So all of these are checked first, and what is there for people and debuggers alone is taken out.
"""

import ast
import json
import re
from typing import Any

import torch
from torch._ops import OpOverload

from jobs.errors import ModelPackageError

_NAME = re.compile(r"[A-Za-z0-9_.:+-]*")
_OPERATOR = re.compile(
    r"torch\.ops\.(?P<space>aten|prims)\.(?P<name>\w+)\.(?P<overload>[A-Za-z]\w*)"
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_(float|int|max|min|not|sqrt|sum)"
    r"|_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pow|pos|sub|truediv)"
    r"|math\.(ceil|floor|sqrt|trunc)"
)
_TOUCHES_FILES = {"from_file"}
_FUNCTION = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Abs|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|ModularIndexing"
    "|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|(Strict)?(Less|Greater)Than|And|Or|Not|[Tt]rue|[Ff]alse|Where|Identity"
    "|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|CeilToInt|FloorToInt|TruncToInt|RoundToInt|ToFloat|TruncToFloat"
)
_SYMBOL = re.compile(r"[suz]f?\d+")
_SYNTAX = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare),
    *(ast.operator, ast.unaryop, ast.cmpop),
)
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}


def checked_graph(data: bytes) -> bytes:
    """The JSON of a graph, if it holds nothing that could be code.

    Raises:
        ModelPackageError: it does; one line that says what.
    """
    graph = json.loads(data)
    graph["guards_code"] = []  # Python, of what `range_constraints` say, too
    return json.dumps(_checked(graph)).encode()


def _checked(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        for name in value:
            _check_name(name)
        return {name: {} if name == "metadata" else _checked(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_checked(part, key) for part in value]
    if isinstance(value, str):
        _check_text(value, key)
    return value


def _check_text(text: str, key: str) -> None:
    match key:
        case "as_string":  # an argument, which is quoted wherever it goes
            pass
        case "expr_str":
            _check_expression(text)
        case "in_spec" | "out_spec":
            _check_spec(json.loads(text))
        case "target" | "as_operator":
            _check_operator(text)
        case _:
            _check_name(text)


def _check_name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ModelPackageError(f"the graph has the name {text[:100]!r}, which could be code")


def _check_operator(text: str) -> None:
    found = _OPERATOR.fullmatch(text)
    if found and found["space"]:
        packet = getattr(getattr(torch.ops, found["space"]), found["name"], None)
        operator = getattr(packet, found["overload"], None)
        if isinstance(operator, OpOverload) and found["name"] not in _TOUCHES_FILES:
            return
    elif found:
        return
    raise ModelPackageError(f"the graph calls {text[:100]!r}, which is no operator that may be called")


def _check_expression(text: str) -> None:
    if not _is_size(text):
        raise ModelPackageError(f"the graph has a size of {text[:100]!r}, which could be code")


def _is_size(text: str) -> bool:
    try:
        parts = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names = [part.id for part in parts if isinstance(part, ast.Name)]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str | bytes)]
    return (
        all(isinstance(part, _SYNTAX) for part in parts)
        and all(_FUNCTION.fullmatch(name) or _SYMBOL.fullmatch(name) for name in names)
        and all(isinstance(name, str) and _SYMBOL.fullmatch(name) for name in texts)
    )


def _check_spec(spec: Any) -> None:
    """How inputs or outputs are nested: JSON, in which the names of a dict are JSON once more."""
    if isinstance(spec, dict):
        if spec["type"] not in _CONTAINERS:
            raise ModelPackageError(f"the network takes or gives a {spec['type']}; only tensors may be")
        _checked(json.loads(spec["context"] or "null"))
        _check_spec(spec["children_spec"])
    elif isinstance(spec, list):
        for part in spec:
            _check_spec(part)
