"""Checks that the graph of a `.pt2` contains only names, numbers, and operators of torch that do nothing but compute.

When torch loads a graph, it evaluates size expressions, looks up operators by any name below `torch`, and generates
Python code that contains names. So all of these are checked first, and metadata for debuggers is removed.
"""

import ast
import json
import re
from typing import Any

import torch
from torch._ops import OpOverload

from jobs.errors import ModelPackageError

_NAME = re.compile(r"-?[A-Za-z0-9_.+]*")  # or -Infinity, which JSON has as a string
_QUOTED_NAME = re.compile(r'[^"\\\x00-\x1f]*')  # torch quotes these in code: a module path, the name of an output
_QUOTED = {"parameter_name", "buffer_name", "tensor_constant_name", "fqn", "out_spec"}
_OPERATOR = re.compile(
    r"torch\.ops\.(?P<space>aten|prims)\.(?P<name>\w+)\.(?P<overload>[A-Za-z]\w*)"
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_(float|int|max|min|not|sqrt|sum)"
    r"|_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pow|pos|sub|truediv)"
    r"|math\.(ceil|floor|sqrt|trunc)"
)
# Operators of torch that do more than compute, or that do not check indices and strides.
_REFUSED = re.compile(
    r"from_file|save|_print|manual_seed|set_grad_enabled|set_?|resize.*"
    r"|_reshape_alias|.*_backward.*|.*sparse.*|.*_helper|_convert_indices.*"
)
_FUNCTION = re.compile(
    "Integer|Rational|Add|Mul|Pow|Max|Min|Abs|Mod|PythonMod|FloorDiv|CeilDiv|CleanDiv|ModularIndexing"
    "|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality|(Strict)?(Less|Greater)Than|And|Or|Not|Where|Identity"
    "|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|CeilToInt|FloorToInt|TruncToInt|RoundToInt|ToFloat|TruncToFloat"
)
_SIZE = re.compile(
    r"[\w .,()+*/%<>='-]*", re.ASCII
)  # no backslash or line break: sympy reads a string as it is written
_SYMBOL, _NUMBER = re.compile(r"[suz]f?\d+", re.ASCII), re.compile(r"[\d.e+-]+", re.ASCII)
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}


def checked_graph(data: bytes) -> bytes:
    """The JSON of a graph, without its metadata.

    Raises:
        ModelPackageError: the graph contains something that could be code; one line that names it.
    """
    graph = json.loads(data)
    if graph["guards_code"]:  # Python code; torch writes none for a network that accepts every batch size
        raise ModelPackageError(f"the network accepts only some batch sizes: {str(graph['guards_code'])[:200]}")
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
        case "as_string":  # an argument, which torch always quotes
            pass
        case "expr_str":
            _check_size(text)
        case "in_spec" | "out_spec":
            _check_spec(json.loads(text), key)
        case "target" | "as_operator":
            _check_operator(text)
        case _:
            _check_name(text, key)


def _check_name(text: str, key: str = "") -> None:
    if not (_QUOTED_NAME if key in _QUOTED else _NAME).fullmatch(text):
        raise ModelPackageError(f"the graph contains the name {text[:100]!r}, which could be code")


def _check_operator(text: str) -> None:
    found = _OPERATOR.fullmatch(text)
    if found and found["space"]:
        packet = getattr(getattr(torch.ops, found["space"]), found["name"], None)
        operator = getattr(packet, found["overload"], None)
        if isinstance(operator, OpOverload) and not _REFUSED.fullmatch(found["name"]):
            return
    elif found:
        return
    raise ModelPackageError(f"the graph calls {text[:100]!r}, which is not an allowed operator")


def _check_size(text: str) -> None:
    try:
        is_size = bool(_SIZE.fullmatch(text)) and _is_size(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        is_size = False
    if not is_size:
        raise ModelPackageError(f"the graph contains the size {text[:100]!r}, which could be code")


def _is_size(part: ast.expr) -> bool:
    match part:
        case ast.Constant(value=bool() | int() | float()):
            parts: list[ast.expr] = []
        case ast.Name(id=name) if name in ("true", "false") or _SYMBOL.fullmatch(name):
            parts = []
        case ast.UnaryOp(operand=operand):
            parts = [operand]
        case ast.BinOp(left=left, right=right):
            parts = [left, right]
        case ast.Compare(left=left, comparators=others):
            parts = [left, *others]
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))]) if _SYMBOL.fullmatch(name):
            parts = [option.value for option in part.keywords]
        case ast.Call(func=ast.Name(id="Float"), args=[ast.Constant(value=str(number))]) if _NUMBER.fullmatch(number):
            parts = [option.value for option in part.keywords]
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if _FUNCTION.fullmatch(name):
            parts = arguments
        case _:
            return False
    return all(map(_is_size, parts))


def _check_spec(spec: Any, key: str) -> None:
    """Check how inputs or outputs are nested: JSON, in which the keys of a dict are JSON again."""
    if isinstance(spec, list):
        for part in spec:
            _check_spec(part, key)
    elif isinstance(spec, dict):
        if spec.keys() != {"type", "context", "children_spec"} or spec["type"] not in _CONTAINERS:
            kind = str(spec.get("type"))[:100]
            raise ModelPackageError(f"the network's input or output is a {kind}; only tensors are allowed")
        names = json.loads(spec["context"] or "null") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ModelPackageError(
                f"the network's input or output has the names {str(names)[:100]}, which could be code"
            )
        for name in names:
            _check_name(name, key)
        _check_spec(spec["children_spec"], key)
