"""What TensorFlow really runs: the operators of a function after its own graph optimisation.

Run as a script, it prints the value of TF_ENABLE_ONEDNN_OPTS that exchanges the kernels in use.
"""

import functools

import pytest
import tensorflow as tf
from tensorflow.python.eager import context


def operators_run(function, *arguments):
    """Run a function; return the operators that ran, after TensorFlow's own rewrites."""
    context.enable_run_metadata()
    try:
        function(*arguments)
        found = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    return [node.op for partition in found.partition_graphs for node in partition.node]


@functools.cache
def has_onednn():
    """Return whether TensorFlow hands a convolution to oneDNN here.

    That depends on the CPU and on TF_ENABLE_ONEDNN_OPTS, so it is tried.
    """

    @tf.function
    def convolve(x):
        return tf.nn.relu(tf.nn.conv2d(x, tf.ones((3, 3, 2, 2)), 1, "SAME"))

    return any("Mkl" in operator for operator in operators_run(convolve, tf.ones((1, 8, 8, 2))))


def require_onednn():
    """Skip a test of a rewrite that oneDNN makes where TensorFlow runs without oneDNN."""
    if not has_onednn():
        pytest.skip("TensorFlow runs without oneDNN here, whose rewrite this test looks for")


if __name__ == "__main__":
    print(int(not has_onednn()))
