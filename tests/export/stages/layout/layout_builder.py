"""Writes a graph line by line, from what a Hypothesis strategy draws."""

import numpy as np
from hypothesis import strategies as st


def numbers(values):
    return "[" + ", ".join(map(str, values)) + "]"


class Builder:
    """Writes a graph line by line; `tensors` are the names so far with their shapes."""

    def __init__(self, draw, opset):
        self.draw, self.opset = draw, opset
        self.integers = {}
        self.tensors, self.lines, self.weights, self.read, self.made = {}, [], {}, set(), 0
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def constant(self, array):
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def weight(self, *shape):
        return self.constant(self.rng.normal(size=shape).astype(np.float32))

    def indices(self, *values):
        return self.constant(np.array(values, np.int64))

    def pick(self, wanted=lambda shape: True):
        names = [name for name, shape in self.tensors.items() if wanted(shape)]
        if not names:
            return None
        name = self.draw(st.sampled_from(names[-4:] if self.draw(st.booleans()) else names))
        self.read.add(name)
        return name

    def add(self, operator, inputs, shape, attributes="", outputs=1):
        names = [f"t{self.made + i}" for i in range(outputs)]
        self.made += outputs
        self.tensors.update(dict.fromkeys(names, tuple(shape)))
        attributes = f"<{attributes}>" if attributes else ""
        self.lines.append(f"{', '.join(names)} = {operator}{attributes}({', '.join(inputs)})")
        return names

    def add_integers(self, operator, inputs, shape, attributes=""):
        """Add an operator whose result nothing else reads."""
        [name] = self.add(operator, inputs, shape, attributes)
        self.integers[name] = self.tensors.pop(name)

    def axis(self, shape, wanted=lambda size: True):
        axes = [axis for axis, size in enumerate(shape) if wanted(size)]
        return self.draw(st.sampled_from(axes)) if axes else None

    def axes(self, shape):
        return sorted(
            self.draw(
                st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=max(1, len(shape) - 1))
            )
        )


def fixed(size):
    return isinstance(size, int)
