import keras
import numpy as np
import onnx
import pytest

from keras_bn.export import check_parity, export_onnx
from tests.export.onnx_edits import change_weight


def build(skipped):
    """Build a network whose layers are numbered from `skipped` on."""
    keras.utils.clear_session(free_memory=False)
    for _ in range(skipped):
        for layer in (keras.layers.ReLU, keras.layers.BatchNormalization):
            layer()
        keras.layers.Conv2D(1, 1)
    x = image = keras.Input((9, 9, 3), name="image")
    for _ in range(3):
        x = keras.layers.Conv2D(4, 3, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(params=[(0, 1), (1, 0), (1, 3)], ids=str)
def rebuilt(request, randomised, tmp_path):
    """A model that was built again under other numbers, and the file of the first one."""
    before, after = request.param
    first = randomised(build(before))
    export_onnx(first, tmp_path / "model.onnx")
    second = build(after)
    second.set_weights(first.get_weights())
    assert first.layers[1].name != second.layers[1].name
    return second, tmp_path / "model.onnx"


def test_file_of_a_model_that_was_built_again_agrees(rebuilt):
    model, path = rebuilt
    report = check_parity(model, path)
    assert report.passed
    assert {row.status for row in report.layers} == {"agrees"}
    held = {name for row in report.layers for name in (*row.folded, row.layer)}
    assert {layer.name for layer in model.layers[1:]} <= held


def test_fault_is_named_as_the_layer_is_now(rebuilt):
    model, path = rebuilt
    convolution, norm = model.layers[4:6]
    norm.epsilon = 0.1
    fault = check_parity(model, path).fault
    assert (fault.stage, fault.layers) == ("file", (convolution.name, norm.name))


def test_weight_that_no_output_shows_is_found_under_other_names(rebuilt):
    model, path = rebuilt
    model.layers[8].beta.assign(np.full(4, -1e6))  # nothing passes the last ReLU
    export_onnx(model, path)
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.name += "_3"
    onnx.save(proto, path)
    kernel = f"{model.layers[1].name}/kernel"
    change_weight(path, kernel, lambda values: values * np.float32(1.01))
    report = check_parity(model, path)
    assert all(row.passed for row in report.outputs)
    assert report.fault.layers == (model.layers[1].name, model.layers[2].name)


def test_nodes_that_are_put_between_are_looked_at(rebuilt):
    """Rounding to float16 that no output shows."""
    model, path = rebuilt
    model.layers[8].beta.assign(np.full(4, -1e6))  # nothing passes the last ReLU
    export_onnx(model, path)
    proto = onnx.load(path)
    (place,) = (i for i, node in enumerate(proto.graph.node) if node.name == model.layers[4].name)
    convolution = proto.graph.node[place]
    output, convolution.output[0] = convolution.output[0], "wide"
    for i, (source, target, dtype) in enumerate([("wide", "half", 10), ("half", output, 1)]):
        name = f"{convolution.name}/cast_{i}"
        cast = onnx.helper.make_node("Cast", [source], [target], name, to=dtype)
        proto.graph.node.insert(place + 1 + i, cast)
    onnx.save(proto, path)
    report = check_parity(model, path)
    assert all(row.passed for row in report.outputs)
    assert not report.passed
    assert model.layers[5].name in report.fault.layers


def test_other_graph_with_other_names_is_judged_by_its_outputs(rebuilt):
    model, path = rebuilt
    proto = onnx.load(path)
    output = proto.graph.output[0].name
    last = next(node for node in proto.graph.node if output in node.output)
    last.output[0] = "before"
    proto.graph.node.append(onnx.helper.make_node("Identity", ["before"], [output], name="more"))
    onnx.save(proto, path)
    report = check_parity(model, path)
    assert report.passed
    assert "differs" not in {row.status for row in report.layers}
