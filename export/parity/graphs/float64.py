"""An ONNX graph in float64, operator by operator: the truth for files that no Keras model is of.

Each operator computes in float64 where ONNX Runtime has it so, else by a stand-in: those of
`windows.py`, a mean for global pooling, a product with interpolation weights for resizing, and
onnx's reference for what is left. The reference is not right everywhere, such as for the batch
norms of opsets 9 to 13; so whatever a stand-in returns must be what ONNX Runtime makes of the same
values in float32, but for rounding.
"""

import functools
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, inliner
from onnx.reference import ReferenceEvaluator

from ...errors import ExportError, one_line
from ...graph.operators import STANDARD
from ...runtime.session import LEVELS, open_session
from ..measure import scale_of
from .widening import widened, widened_array
from .windows import average_pool, conv, conv_transpose

__all__ = ["Float64Graph", "NoTruthError", "Noise", "fed_inputs"]

SAME = 1e-3  # of the scale: what a stand-in and ONNX Runtime in float32 may differ by

Arrays = dict[str, np.ndarray]
# Takes an operator and what it reads, which it may change.
Taken = Callable[[onnx.NodeProto, list[np.ndarray | None]], list[np.ndarray | None]]
# Takes an operator, what it reads, and what it returns, which it may change.
Noise = Callable[[onnx.NodeProto, list[np.ndarray | None], list[np.ndarray]], list[np.ndarray]]


class NoTruthError(ExportError):
    """A graph cannot be computed in float64; the text says which operator cannot."""


def fed_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that must be given: those without a constant for when they are not."""
    constant = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constant]


class Float64Graph:
    """A graph to be run in float64.

    Args:
        proto: The model, all its weights in it; stays unchanged.

    Attributes:
        inputs: Names of the inputs that have no constant.
        outputs: Names of the outputs.
        weights: The constants, by name, floats in float64.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
        graph = proto.graph
        self.weights = {
            tensor.name: widened_array(onnx.numpy_helper.to_array(tensor))
            for tensor in graph.initializer
        }
        self.inputs = [value.name for value in fed_inputs(graph)]
        self.outputs = [value.name for value in graph.output]
        self._operators = [_Operator(node, proto) for node in graph.node]
        self._last: dict[str, int] = {}
        for place, operator in enumerate(self._operators):
            self._last.update(dict.fromkeys(operator.reads, place))

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The operators, in order."""
        return [operator.node for operator in self._operators]

    def run(
        self,
        inputs: Mapping[str, np.ndarray],
        wanted: Container[str],
        *,
        weights: Arrays | None = None,
        taken: Taken | None = None,
        noise: Noise | None = None,
    ) -> Arrays:
        """Run it.

        Args:
            inputs: An array for each input, by name; floats of any precision.
            wanted: Names of the tensors to return.
            weights: Other constants than its own.
            taken: Changes what each operator is given.
            noise: Changes what each operator returns.

        Returns:
            The wanted tensors, by name.

        Raises:
            NoTruthError: If an operator has no float64.
        """
        values = dict(self.weights if weights is None else weights)
        values |= {name: widened_array(array) for name, array in inputs.items()}
        found = {name: array for name, array in values.items() if name in wanted}
        for place, operator in enumerate(self._operators):
            missing = [name for name in operator.reads if name and name not in values]
            if missing:  # such as a sparse tensor
                raise NoTruthError(operator.cannot(f"no array is called {missing[0]!r}"))
            given = [values[name] if name else None for name in operator.reads]
            given = given if taken is None else taken(operator.node, given)
            results = operator.run(given)
            if noise is not None:
                results = noise(operator.node, given, results)
            for name, result in zip(operator.returns, results, strict=True):
                values[name] = result
                if name in wanted:
                    found[name] = result
            for name in (*operator.reads, *operator.returns):
                if self._last.get(name, -1) <= place:
                    values.pop(name, None)
        return found


class _Operator:
    """One operator, or a body with its own, as a model of its own.

    Attributes:
        node: The operator as it stands in the file.
        reads: Names of what it reads, "" for what is left out; behind those, what its bodies read.
        returns: Names of what it returns, but for what is left out.
    """

    def __init__(self, node: onnx.NodeProto, proto: onnx.ModelProto) -> None:
        self.node = node
        bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        own = set(node.input)
        captured = dict.fromkeys(name for body in bodies for name in _free(body))
        self.reads = [*node.input, *(name for name in captured if name not in own)]
        self.returns = [name for name in node.output if name]
        self._opsets, self._version = proto.opset_import, proto.ir_version
        self._wide = widened(node) if node.domain in STANDARD else node
        self._run: Callable[[list[np.ndarray | None]], list[np.ndarray]] | None = None

    def run(self, given: list[np.ndarray | None]) -> list[np.ndarray]:
        """Compute in float64, in the way that the first call finds."""
        if self._run is not None:
            return self._run(given)
        floats = any(array is not None and array.dtype == np.float64 for array in given)
        try:
            self._run = functools.partial(self._in_onnx_runtime, self._session(self._wide, given))
            return self._run(given)
        except Exception as e:  # ONNX Runtime's exceptions have no common base but Exception
            if not floats and not self._wide.attribute:
                raise NoTruthError(self.cannot(one_line(e))) from e
            error = e
        for way in self._ways():
            try:
                results = way(given)
                self._require_same(given, results)
            except Exception as e:  # a reference fails in many ways
                error = e
                continue
            self._run = way
            return results
        raise NoTruthError(self.cannot(one_line(error))) from error

    def _ways(self) -> list[Callable[..., list[np.ndarray]]]:
        """Return the ways to compute what ONNX Runtime does not, the best first."""
        if self.node.domain not in STANDARD:
            return []
        stand_in = STAND_INS.get(self.node.op_type)
        if stand_in is not None:
            return [self._by(stand_in), self._by_reference]
        if self.node.op_type in ("Resize", "Upsample"):
            return [self._resized, self._by_reference]
        return [self._by_reference]

    def cannot(self, why: str) -> str:
        """Say in words that there is no float64."""
        name = self.node.name or self.node.output[0]
        return f"{self.node.op_type} {name!r} has no float64: {why}"

    def _model(self, node: onnx.NodeProto, given: list[np.ndarray | None]) -> onnx.ModelProto:
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
            for name, array in dict(zip(self.reads, given, strict=True)).items()
            if array is not None
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.returns]
        graph = helper.make_graph([node], "operator", inputs, outputs)
        return helper.make_model(
            graph, opset_imports=self._opsets, ir_version=min(self._version, onnx.IR_VERSION)
        )

    def _session(self, node: onnx.NodeProto, given: list[np.ndarray | None]) -> Any:
        return open_session(self._model(node, given).SerializeToString(), LEVELS[0])

    def _in_onnx_runtime(self, session: Any, given: list[np.ndarray | None]) -> list[np.ndarray]:
        feed = {name: a for name, a in zip(self.reads, given, strict=True) if a is not None}
        return [np.asarray(result) for result in session.run(self.returns, feed)]

    def _by(self, function: Callable[..., Any]) -> Callable[..., list[np.ndarray]]:
        attributes = {a.name: helper.get_attribute_value(a) for a in self._wide.attribute}
        texts = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in attributes.items()
        }

        def run(given: list[np.ndarray | None]) -> list[np.ndarray]:
            return [np.asarray(function(*given, **texts), np.float64)]

        return run

    def _by_reference(self, given: list[np.ndarray | None]) -> list[np.ndarray]:
        evaluator = ReferenceEvaluator(self._model(self._wide, given))
        feed = {name: a for name, a in zip(self.reads, given, strict=True) if a is not None}
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [np.asarray(result) for result in evaluator.run(None, feed)]

    def _resized(self, given: list[np.ndarray | None]) -> list[np.ndarray]:
        """Resize axis by axis, with the weights that ONNX Runtime gives every value of one."""
        y = given[0]
        (target,) = self._in_float32(self.node, given)
        if y is None or b"tf_crop_and_resize" in [a.s for a in self.node.attribute]:
            raise NotImplementedError("resizing that extrapolates")
        node = onnx.NodeProto()
        node.CopyFrom(self.node)
        kept = [a for a in node.attribute if a.name not in ("axes", "keep_aspect_ratio_policy")]
        del node.attribute[:]
        node.attribute.extend(kept)
        axes = next((list(a.ints) for a in self.node.attribute if a.name == "axes"), None)
        place = 1 if self.node.op_type == "Upsample" else 2
        scales = given[place] if len(given) > place else None
        for axis, (n, m) in enumerate(zip(y.shape, target.shape, strict=True)):
            if n == m:
                continue
            shape = [n if a in (0, axis) else 1 for a in range(y.ndim)]
            if axis == 0:
                raise NotImplementedError("resizing of the batch")
            eye = np.eye(n, dtype=np.float32).reshape(shape)
            if scales is not None and scales.size:
                order = [a % y.ndim for a in axes] if axes else list(range(y.ndim))
                factors = np.ones(y.ndim, np.float32)
                factors[axis] = scales[order.index(axis)]
                others = [eye, *given[1:place], factors]
            else:
                sizes = np.array([m if a == axis else size for a, size in enumerate(shape)])
                others = [eye, *given[1:place], given[place], sizes]
            (weights,) = self._in_float32(node, others)
            y = np.moveaxis(np.tensordot(y, weights.reshape(n, m), (axis, 0)), -1, axis)
        return [np.asarray(y, np.float64)]

    def _in_float32(self, node: onnx.NodeProto, given: Any) -> list[np.ndarray]:
        narrow = [None if array is None else _narrowed(array) for array in given]
        return self._in_onnx_runtime(self._session(node, narrow), narrow)

    def _require_same(self, given: list[np.ndarray | None], results: list[np.ndarray]) -> None:
        """Raise `ArithmeticError` unless ONNX Runtime in float32 returns much the same."""
        others = self._in_float32(self.node, given)
        for wide, other in zip(results, others, strict=True):
            if wide.shape != other.shape:
                raise ArithmeticError(f"shapes {wide.shape} and {other.shape}")
            both = np.isfinite(wide) & np.isfinite(other)
            if both.any() and np.abs(wide - other)[both].max() > SAME * scale_of(wide):
                raise ArithmeticError("other values than ONNX Runtime in float32")


def _narrowed(array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype == np.float64 else array


def _free(body: onnx.GraphProto) -> Iterable[str]:
    """Yield the names that a body reads and does not make."""
    made = {value.name for value in body.input} | {t.name for t in body.initializer}
    for node in body.node:
        inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
        for name in (*node.input, *(name for graph in inner for name in _free(graph))):
            if name and name not in made:
                yield name
        made.update(node.output)
    for value in body.output:
        if value.name not in made:
            yield value.name


def _global_mean(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.mean(tuple(range(2, x.ndim)), keepdims=True))


def _instance_norm(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, *, epsilon: float = 1e-5
) -> np.ndarray:
    axes, shape = tuple(range(2, x.ndim)), (-1, *(1 for _ in x.shape[2:]))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    normal = (x - mean) / np.sqrt(variance + epsilon)
    return np.asarray(normal * scale.reshape(shape) + bias.reshape(shape))


STAND_INS: dict[str, Callable[..., Any]] = {
    "AveragePool": average_pool,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "GlobalAveragePool": _global_mean,
    "InstanceNormalization": _instance_norm,
}
