"""Several replicas give what one device gives on the concatenated batch."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from tests.docs.pages import blocks
from tests.keras_bn.replicas import SHAPE, data, fit, step
from tests.tolerances import FLOAT32, assert_close

pytestmark = pytest.mark.onednn

ROOT = Path(__file__).parents[2]


def start(out, devices, sizes, *options, **environment):
    words = [
        sys.executable,
        "-m",
        "tests.keras_bn.replicas",
        out,
        devices,
        ",".join(map(str, sizes)),
        *options,
    ]
    return subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


def tasks(workers):
    """Return the TF_CONFIG of each worker of a cluster on this machine."""
    ports = []
    for _ in range(workers):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(free.getsockname()[1])
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    return [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})
        for i in range(workers)
    ]


def finish(process, out):
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    with np.load(out) as loaded:
        return dict(loaded)


def alone(sizes, weighted):
    """Run the layer on one device, on the whole batch."""
    layer = BatchNormalization(fused=False, momentum=0.5)
    layer.build((None, *SHAPE))
    batch = [tf.constant(array) for array in data(sizes)]
    y, dx, dgamma, dbeta = step(layer, weighted)(*batch)
    return y, dx, dgamma, dbeta, layer.moving_mean, layer.moving_variance


def assert_same(found, replicas, sizes, weighted):
    """Compare the parts of all replicas with one device."""

    def parts(name):
        return [found[f"{name}{i}"] for i in range(replicas)]

    y, dx, dgamma, dbeta, mean, variance = alone(sizes, weighted)
    assert_close(np.concatenate(parts("y")), y, FLOAT32)
    assert_close(np.concatenate(parts("dx")), dx, FLOAT32)
    assert_close(sum(parts("dgamma")), dgamma, FLOAT32)
    assert_close(sum(parts("dbeta")), dbeta, FLOAT32)
    for copy in parts("moving_mean"):
        assert_close(copy, mean, FLOAT32)
    for copy in parts("moving_variance"):
        assert_close(copy, variance, FLOAT32)
        np.testing.assert_array_equal(copy, found["moving_variance0"])  # no drift between them


@pytest.mark.parametrize("sizes", [(4, 4), (3, 5), (6, 0), (2, 3, 1, 2), (0, 5, 0, 3)])
@pytest.mark.parametrize("options", [(), ("mask",)], ids=["plain", "mask and weights"])
@pytest.mark.slow
def test_mirrored_replicas_equal_one_device(tmp_path, sizes, options):
    out = tmp_path / "out.npz"
    process = start(out, len(sizes), sizes, *options)
    try:
        found = finish(process, out)
    finally:
        process.kill()
    assert_same(found, len(sizes), sizes, bool(options))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(4, 4), (2, 2, 2, 2)])
def test_fit_on_mirrored_replicas_equals_one_device(tmp_path, sizes):
    out = tmp_path / "out.npz"
    process = start(out, len(sizes), sizes, "fit")
    try:
        found = finish(process, out)
    finally:
        process.kill()
    for name, expected in fit(sizes).items():
        assert_close(found[name], expected, FLOAT32)


@pytest.mark.parametrize("sizes", [(4, 4), (3, 5), (6, 0)])
@pytest.mark.parametrize("options", [(), ("mask",)], ids=["plain", "mask and weights"])
@pytest.mark.slow
def test_two_workers_equal_one_device_with_one_collective_each_way(tmp_path, sizes, options):
    outs = [tmp_path / f"out{i}.npz" for i in range(len(sizes))]
    processes = [
        start(out, "worker", sizes, *options, TF_CONFIG=task)
        for out, task in zip(outs, tasks(len(sizes)), strict=True)
    ]
    try:
        results = [finish(process, out) for process, out in zip(processes, outs, strict=True)]
    finally:  # one that waits for a worker that failed
        for process in processes:
            process.kill()
            process.communicate()
    assert [int(result["collectives"]) for result in results] == [2, 2]  # forward, backward
    found = {f"{k[:-1]}{i}": v for i, r in enumerate(results) for k, v in r.items() if k[-1] == "0"}
    assert_same(found, len(sizes), sizes, bool(options))


@pytest.mark.slow
def test_documented_loop_trains_on_two_workers():
    _, code = (one.text for one in blocks("docs/replicas.md") if one.kind == "python")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TF_CONFIG": task},
        )
        for task in tasks(2)
    ]
    try:
        lines = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert lines[0] == lines[1]
    first, last = re.fullmatch(r"loss (\S+) -> (\S+)\n", lines[0]).groups()
    assert float(last) < 0.5 * float(first)


def test_without_a_strategy_it_is_the_ordinary_layer(rng, each_kernel):
    x = rng.normal(3.0, 2.0, (8, *SHAPE)).astype(np.float32)
    fused = None if each_kernel == "native" else False
    one, plain = BatchNormalization(synchronized=True), BatchNormalization(fused=fused)
    np.testing.assert_array_equal(one(x, training=True), plain(x, training=True))
    np.testing.assert_array_equal(one.moving_variance, plain.moving_variance)
