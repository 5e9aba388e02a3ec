"""Run a model and record what enters its batch-norm layers, without changing the model.

While the model runs, each layer that is observed has a `call` of its own, which records the moments
of its input and then normalises: by the batch (Algorithm 1) or by stored statistics. All other
layers run in inference mode, but for those, such as dropout, that are wanted as in training. The
run happens inside a `keras.StatelessScope`, so that nothing assigns to a variable; `call` is put
back even when the run raises or is interrupted. Functions that the model has decorated with
`tf.function` run step by step meanwhile: a trace of theirs would keep the layers' other `call` for
ever.

Normalising by the batch is Algorithm 1: ghost batches, masks and weights count; the corrections of
batch renormalisation, which depend on the stored statistics, are left out.

A layer inside a loop or a branch of the graph cannot be observed and is reported. One that a
subclassed model always calls with `training=False` cannot be told from the others.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_bn.interception import (
    current_graph,
    eager_functions,
    is_in_vectorized_map,
    replaced_methods,
)
from keras_bn.moments import Moments, layer_moments, normalise
from keras_bn.statistics.batches import batch_size_of
from keras_bn.statistics.selection import HIDDEN

__all__ = ["ObservedModel", "record_moments"]

NOT_CALLED = "the model did not call it"

Record = Callable[[Any, Moments, Any, Any, Any], Any]


def record_moments(layer: Any, moments: Moments, *_: Any) -> Any:
    """Record the moments of a layer's input.

    Returns:
        The total weight, the effective number of values, the mean and the biased variance; shape
        (groups, C) each, where a group is what is normalised together: the batch, or a ghost batch.
    """
    channels = layer.moving_mean.shape[0]
    return tuple(
        tf.reshape(tf.broadcast_to(value, tf.shape(moments.mean)), [-1, channels])
        for value in (moments.total, moments.effective, moments.mean, moments.variance)
    )


class ObservedModel:
    """A model to be called on batches, with a record of what entered some of its layers.

    Attributes:
        layers: The layers that are observed.
        by_batch: Whether those normalise by the batch; otherwise by their stored statistics.
        hidden: Indices of layers that were called where they cannot be observed.
        order: Indices of `layers` in the order of their last calls.
    """

    def __init__(
        self,
        where: str,
        model: Any,
        layers: Sequence[Any],
        *,
        by_batch: bool,
        record: Record = record_moments,
        replaced: Sequence[Any] = (),
        in_training: Sequence[Any] = (),
        with_outputs: bool = False,
    ) -> None:
        """Prepare to run a model.

        Args:
            where: Name of the function that was called, for messages.
            model: The model.
            layers: The layers to observe.
            by_batch: Whether those normalise by the batch.
            record: What to record: a function of layer, moments, input, mask and sample weights.
            replaced: Layers whose stored statistics are given with each call.
            in_training: Layers, such as dropout, that act as in training, each time with other
                random numbers.
            with_outputs: Whether the model's outputs are wanted; without them, what no record
                needs is not computed.
        """
        self._where, self._model = where, model
        self.layers = list(layers)
        self.by_batch = by_batch
        self.hidden: set[int] = set()
        self.order: list[int] = []
        self._record = record
        self._replaced = list(replaced)
        self._in_training = list(in_training)
        self._with_outputs = with_outputs
        self._eager = bool(model.run_eagerly)
        self._run: Any = self._step
        self._is_traced = self._eager
        if not self._eager:
            self._run = tf.function(self._step, reduce_retracing=True, autograph=False)
            # TensorFlow counts the traces of all instances together and warns of too many. Keras
            # does not let autograph convert its models either.
            self._run._omit_frequent_tracing_warning = True

    def __call__(
        self, inputs: Any, sample_weight: Any = None, statistics: Any = ()
    ) -> tuple[Any, list[list[Any]]]:
        """Run the model on a batch.

        Args:
            inputs: What the model takes.
            sample_weight: None, or weights for the moments, shape (N,) or longer.
            statistics: The mean and variance, shape (C,) each, of each layer in `replaced`.

        Returns:
            The outputs, or None without `with_outputs`; for each layer, for each time that it was
            called, what was recorded, in NumPy. A batch without samples gives no outputs and no
            records.
        """
        if batch_size_of(inputs) == 0:
            return None, []
        if not self._is_traced and sample_weight is None and _is_for_any_rows(self._model, inputs):
            rows = tf.nest.map_structure(
                lambda value: tf.TensorSpec([None, *value.shape[1:]], value.dtype), inputs
            )
            self._run.get_concrete_function(rows, None, statistics)
        self._is_traced = True
        outputs, records = self._run(inputs, sample_weight, statistics)
        return outputs, tf.nest.map_structure(np.asarray, records)

    @property
    def observed(self) -> list[int]:
        """Indices of the layers whose every call is on record, in calling order."""
        return [i for i in self.order if i not in self.hidden]

    def why_not_observed(self, index: int) -> str:
        """Say why a layer has no record, or not of every call."""
        return HIDDEN if index in self.hidden else NOT_CALLED

    def not_observed(self, paths: Sequence[str]) -> dict[str, str]:
        """Return path and reason for each layer without a full record, given all paths."""
        left = set(range(len(paths))) - set(self.observed)
        return {paths[i]: self.why_not_observed(i) for i in sorted(left)}

    def _step(self, inputs: Any, sample_weight: Any, statistics: Any) -> tuple[Any, Any]:
        records: list[list[Any]] = [[] for _ in self.layers]
        mapping = [
            (variable, value)
            for layer, values in zip(self._replaced, statistics, strict=True)
            for variable, value in zip(
                (layer.moving_mean, layer.moving_variance), values, strict=True
            )
        ]
        mapping += [
            (generator.state, _random_seed(generator.state))
            for layer in self._in_training
            for generator in layer._seed_generators
        ]
        scopes = keras.StatelessScope(mapping), self._intercepted(records, sample_weight)
        with eager_functions(), scopes[0], scopes[1]:
            outputs = self._model(inputs, training=False)
        return outputs if self._with_outputs else None, records

    @contextlib.contextmanager
    def _intercepted(self, records: list[list[Any]], sample_weight: Any) -> Iterator[None]:
        """Give the layers their own `call` for as long as the block runs."""
        calls = [
            (layer, "call", self._call_of(index, records[index], sample_weight))
            for index, layer in enumerate(self.layers)
        ]
        calls += [(layer, "call", _training_call_of(layer)) for layer in self._in_training]
        with replaced_methods(calls):
            yield

    def _call_of(self, index: int, uses: list[Any], batch_weight: Any) -> Callable[..., Any]:
        layer, graph = self.layers[index], current_graph()

        def call(
            inputs: Any, training: Any = None, mask: Any = None, sample_weight: Any = None
        ) -> Any:
            del training
            inference = type(layer).call
            if current_graph() is not graph or is_in_vectorized_map():
                self.hidden.add(index)
                return inference(layer, inputs, training=False)
            mask = mask if mask is not None else getattr(inputs, "_keras_mask", None)
            if sample_weight is None and batch_weight is not None:
                _check_rows(self._where, layer, inputs, batch_weight)
                sample_weight = batch_weight
            ghosts = getattr(layer, "ghost_batch_size", None)
            moments = layer_moments(
                inputs, layer.axis, mask, sample_weight, ghost_batch_size=ghosts
            )
            uses.append(self._record(layer, moments, inputs, mask, sample_weight))
            if index in self.order:
                self.order.remove(index)
            self.order.append(index)
            if not self.by_batch:
                return inference(layer, inputs, training=False)
            gamma = ops.cast(layer.gamma, moments.mean.dtype) if layer.scale else None
            beta = ops.cast(layer.beta, moments.mean.dtype) if layer.center else None
            outputs = normalise(moments, inputs, layer.axis, layer.epsilon, gamma, beta)
            outputs = ops.cast(outputs, layer.compute_dtype)
            return layer.activated(outputs) if hasattr(layer, "activated") else outputs

        return call


def _is_for_any_rows(model: Any, inputs: Any) -> bool:
    """Say whether one trace can do for whole batches and a smaller last one.

    Keras has built such a model for any number of samples. The trace takes half of the time.
    """
    specified = tf.nest.flatten(getattr(model, "inputs", None) or [])
    return bool(specified) and all(
        value.shape[0] is None and isinstance(given, tf.Tensor)
        for value, given in zip(specified, tf.nest.flatten(inputs), strict=False)
    )


def _training_call_of(layer: Any) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        bound = inspect.signature(type(layer).call).bind(layer, *arguments, **options)
        bound.arguments["training"] = True
        return type(layer).call(*bound.args, **bound.kwargs)

    return call


def _random_seed(state: Any) -> Any:
    """Return another state of a seed generator, drawn whenever the model runs."""
    drawn = tf.random.uniform(state.shape, maxval=tf.int32.max, dtype=tf.int32, seed=0)
    return ops.cast(drawn, state.dtype)


def _check_rows(where: str, layer: Any, inputs: Any, batch_weight: Any) -> None:
    rows, weights = inputs.shape[0], batch_weight.shape[0]
    if rows is not None and weights is not None and rows != weights:
        raise ValueError(
            f"{where}: `weighted` must be False where a layer's input has not one row for each "
            f"sample. Received: {weights} weights, and at layer {layer.name!r} an input of shape "
            f"{tuple(inputs.shape)}."
        )
