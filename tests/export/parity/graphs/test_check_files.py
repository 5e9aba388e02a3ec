"""Two ONNX files on the same inputs, and a fold that is proven by that."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import keras_bn.export.foreign.fold_opened as fold_opened
from keras_bn.export import ExportError, ParityError, fold_batch_norms
from keras_bn.export.parity.graphs.check_files import check_files
from keras_bn.export.parity.graphs.draws import inputs_of

TEXT = """
    <ir_version: 8, opset_import: ["": {opset}]>
    g (float[N,3,H,W] image) => (float[N,4,a,b] y) {{
        c = Conv<pads = [1,1,1,1]>(image, w, wb)
        n = BatchNormalization(c, s, o, m, v)
        r = Relu(n)
        d = Conv(r, w2)
        n2 = BatchNormalization(d, s, o, m, v)
        y = Sigmoid(n2)
    }}"""


def network(opset=13):
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 3, 3, 3), "wb": (4,), "s": (4,), "o": (4,), "m": (4,), "w2": (4, 4, 3, 3)}
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    weights["v"] = np.exp(rng.normal(size=4))
    proto = onnx.parser.parse_model(TEXT.format(opset=opset))
    for name, array in weights.items():
        proto.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    return proto


def changed(proto, shape, change):
    """Return a copy with one weight changed, the first of a shape."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    tensor = next(t for t in copy.graph.initializer if tuple(t.dims) == shape)
    array = numpy_helper.to_array(tensor).copy()
    change(array)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def larger(array):
    array[1] *= 1.001


@pytest.mark.parametrize("opset", [9, 11, 13, 15, 17])
def test_folded_file_agrees_by_float64(opset):
    model = network(opset)
    folded, report = fold_batch_norms(model, check=True)
    assert len(report.folds) == 2
    found = check_files(model, folded)
    assert found.passed, str(found)
    assert {row.reference for row in found.outputs} == {"float64"}
    kinds = ["drawn", "another size", "constant", "out of range"]
    assert [row.case for row in found.outputs if row.name == "y"] == kinds
    assert {row.name for row in found.outputs} == {"y", "n2"}  # what the last gate reads
    assert found.outputs[0].own == "the first file"
    assert set(found.versions) == {"python", "keras-bn", "numpy", "onnx", "onnxruntime"}


def test_model_and_path_of_any_kind_are_compared(tmp_path):
    model, path = network(), tmp_path / "model.onnx"
    onnx.save(model, path)
    folded, _ = fold_batch_norms(path, check=True)
    assert isinstance(folded, ir.Model)
    report = check_files(str(path), folded)
    assert report.passed
    assert (report.model, report.path) == (str(path), "the second file")


def test_weight_off_by_a_thousandth_is_found_and_located():
    folded, _ = fold_batch_norms(network())
    report = check_files(network(), changed(folded, (4, 4, 3, 3), larger))
    assert not report.passed
    assert report.fault.value == "d"
    assert "of Conv" in report.fault.detail


def test_fault_is_found_where_every_gate_is_shut():
    text = "g (float[N,4] x) => (float[N,4] y) { z = Mul(x, k) h = Sub(z, c) y = Sigmoid(h) }"
    first, second = parse(text), parse(text)
    for proto, factor in ((first, 1.0), (second, 1.001)):
        for name, value in (("k", factor), ("c", 60.0)):
            proto.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    report = check_files(first, second, ranges={"x": (0, 10)})
    assert not report.passed
    assert {row.name for row in report.outputs if not row.passed} >= {"h"}


def test_a_free_number_of_channels_is_that_of_the_weights():
    proto = network()
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
    assert [spec.shape for spec in inputs_of(proto)] == [(None,) * 4]
    assert [spec.shape for spec in inputs_of(proto, told=True)] == [(None, 3, None, None)]
    assert check_files(proto, proto).passed


def test_size_of_minus_one_is_free():
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert check_files(model, model).samples == 12


def test_tensor_where_padding_is_off_is_located():
    folded, _ = fold_batch_norms(network())
    folded.graph.node[0].attribute[0].ints[:] = [0, 1, 2, 1]
    report = check_files(network(), folded)
    assert not report.passed
    assert report.fault.value == folded.graph.node[0].output[0]
    assert "of Conv" in report.fault.detail


def test_file_that_is_the_same_agrees_exactly():
    report = check_files(network(), network())
    assert report.passed
    assert all(row.onnx == row.keras or row.optimised == row.keras for row in report.outputs)


def test_fold_that_changes_the_model_raises(monkeypatch, tmp_path):
    fold = fold_opened.fold

    def wrong(model, **options):
        folded, report = fold(model, **options)
        value = next(v for v in folded.graph.initializers.values() if v.shape == (4, 4, 3, 3))
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.01), name=value.name)
        return folded, report

    monkeypatch.setattr(fold_opened, "fold", wrong)
    with pytest.raises(ParityError, match="fold: the folded model must compute") as raised:
        fold_batch_norms(network(), check=True)
    assert not raised.value.report.passed
    fold_batch_norms(network())


def test_given_samples_are_run(rng):
    images = rng.normal(size=(6, 3, 9, 9)).astype(np.float32)
    report = check_files(network(), network(), inputs={"image": images})
    assert report.passed
    assert report.samples == 6
    assert report.seed is None
    with pytest.raises(ExportError, match="must be left out where samples are given"):
        check_files(network(), network(), inputs=images, input_shapes={"image": [1, 3, 9, 9]})


def test_sizes_are_those_given():
    report = check_files(network(), network(), input_shapes={"image": [2, 3, 20, 30]})
    assert {row.case for row in report.outputs} == {"drawn", "constant", "out of range"}
    assert report.samples == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_shapes": {"x": [1]}}, "must be of inputs of the model, ['image']. Received: 'x'"),
        ({"input_shapes": {"image": [1, 4, 8, 8]}}, "must fit input 'image' of shape [None, 3"),
        ({"input_shapes": {"image": [1, 3]}}, "Received: [1, 3]."),
        ({"ranges": {"x": (0, 1)}}, "must be of inputs of the model, ['image']. Received: 'x'"),
        ({"ranges": {"image": (1, 0)}}, "Received: image=(1, 0)."),
        ({"seed": -1}, "Received: -1."),
        ({"providers": ["X"]}, "Received: ['X']."),
        ({"inputs": np.ones((1, 3, 1, 1), np.float32)}, "the first file must accept"),
        ({"input_shapes": {"image": [1, 3, 1, 1]}}, "must accept the inputs"),
    ],
)
def test_options_that_do_not_fit_are_one_error(options, words):
    with pytest.raises(ExportError) as raised:
        check_files(network(), network(), **options)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def parse(body, opset=17, more=""):
    text = f'<ir_version: 8, opset_import: ["": {opset}{more}]>\n{body}'
    return onnx.parser.parse_model(text)


def test_other_outputs_are_one_error():
    model = parse("g (float[N] x) => (float[N] y, float[N] z) { y = Relu(x) z = Abs(x) }")
    with pytest.raises(ExportError, match="must be those of the first file"):
        check_files(model, parse("g (float[N] x) => (float[N] y) { y = Relu(x) }"))


def test_other_names_stand_in_order():
    model = parse("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    assert check_files(model, parse("g (float[N] a) => (float[N] b) { b = Relu(a) }")).passed


def test_advice_for_keras_models_is_not_given_on_files():
    of_float64 = parse("g (double[N,1,4,4] x, double[1,1,2,2] w) => (double[N,1,3,3] y)"
                       "{ y = Conv(x, w) }")  # fmt: skip
    with pytest.raises(ExportError, match=r"It lacks that operator in that dtype$"):
        check_files(of_float64, of_float64)
    parts = parse("g (float[N] x) => (seq(float[M]) y) { y = SequenceConstruct(x) }")
    with pytest.raises(ExportError, match=r"of list with no dtype\.$"):
        check_files(parts, parts)


def test_where_the_first_file_overflows_it_is_the_truth_itself():
    model = parse("g (float[N,64] x) => (float[N,64] y) <float k = {30}>"
                  "{ a = Mul(x, k) y = Exp(a) }")  # fmt: skip
    report = check_files(model, model)
    assert report.passed
    assert any("the first file itself where" in row.reference for row in report.outputs)
    assert not any("Keras" in row.reference for row in report.outputs)


def test_operator_that_onnx_runtime_lacks_is_one_error():
    model = parse("g (float[N] x) => (float[N] y) { y = acme.Own(x) }", more=', "acme": 1')
    with pytest.raises(ExportError, match="must be a file that ONNX Runtime loads"):
        check_files(model, model)


def test_indices_are_drawn_from_the_table_that_reads_them():
    model = parse("g (int64[N,5] i) => (float[N,5,2] y) { j = Identity(i) y = Gather(t, j) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((7, 2), np.float32), "t"))
    report = check_files(model, model)
    assert report.drawn["i"].startswith("whole numbers from 0 to 6, the indices")


def test_logarithm_is_drawn_from_what_it_takes():
    text = "g (float[N,5] x) => (float[N,1] y) { z = Log(x) y = ReduceMean<axes = [1]>(z) }"
    report = check_files(parse(text), parse(text))
    assert report.passed
    assert "x was drawn from [0, 1)" in " ".join(report.notes)


def test_model_without_float64_is_judged_by_the_first_file():
    text = """g (float[N,5] x, float[5,5] w) => (float[N,5] y) {
        z = Relu(x) f = com.microsoft.FusedMatMul(z, w) y = Relu(f) }"""
    model = parse(text, more=', "com.microsoft": 1')
    other = onnx.ModelProto.FromString(model.SerializeToString())
    report = check_files(model, other)
    assert report.passed
    if report.outputs[0].reference != "float64":
        assert "the first file itself" in report.outputs[0].reference


def test_half_precision_is_allowed_its_errors():
    text = "g (float16[N,64] x) => (float16[N,64] y) {{ h = {} y = Softmax(h) }}"
    first, second = (parse(text.format(op)) for op in ("Add(x, x)", "Mul(x, k)"))
    second.graph.initializer.append(numpy_helper.from_array(np.float16(2), "k"))
    assert check_files(first, second).passed


def test_no_input_at_all():
    model = parse("g () => (float[2] y) { y = Constant<value_floats = [1.0, 2.0]>() }")
    assert check_files(model, model).passed


def test_constant_that_is_an_output_is_compared():
    text = "g (float[N,2] x, float[2,2] w) => (float[N,2] y, float[2,2] w) { y = MatMul(x, w) }"
    first, second = parse(text), parse(text)
    for model, factor in ((first, 1), (second, 2)):
        del model.graph.input[1]
        array = np.full((2, 2), factor, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, "w"))
    assert check_files(first, first).passed
    assert [row.passed for row in check_files(first, second).outputs][:2] == [False, False]


def test_table_without_rows_is_one_error():
    model = parse("g (int64[N,5] i) => (float[N,5,2] y) { y = Gather(t, i) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((0, 2), np.float32), "t"))
    with pytest.raises(ExportError, match="out of data bounds"):
        check_files(model, model)


def test_input_without_a_shape_takes_the_sizes_that_are_asked_for():
    proto = parse("g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.ClearField("shape")
    with pytest.raises(ExportError, match=r"an input without a shape.*--input-shape x="):
        check_files(proto, proto)
    report = check_files(proto, proto, input_shapes={"x": (3, 4)})
    assert (report.passed, report.outputs[0].samples) == (True, 9)


def test_input_of_a_dtype_that_numpy_lacks_is_refused():
    proto = parse("g (bfloat16[N,4] x) => (bfloat16[N,4] y) { y = Identity(x) }")
    with pytest.raises(ExportError, match=r"Received: a tensor of bfloat16\. Cast it in the file"):
        check_files(proto, proto)


def test_input_that_would_fill_the_memory_is_not_drawn():
    model = parse("g (float[N,1000000000000] x) => (float[N,1000000000000] y) { y = Relu(x) }")
    with pytest.raises(ExportError, match=r"at most 134,217,728 values.*Received: sizes \[10"):
        check_files(model, model)
