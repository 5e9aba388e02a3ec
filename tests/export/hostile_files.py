"""Files that mean harm, each made from a good one in place, with what its error has to say.

`KERAS` and `ONNX` damage model.keras and model.onnx of the small model; `SAMPLES` writes a file of
samples. Every entry maps an id to the function and the words.
"""

import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
from onnx import helper

WEIGHTS = "model.weights.h5"
VAST = 10**12


def rewrite(path, edits, *, add=(), method=zipfile.ZIP_STORED):
    """Write a zip file anew, some members by functions of their content, and others added."""
    with zipfile.ZipFile(path) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in [*parts, *add]:
            archive.writestr(name, edits[name](content) if name in edits else content)


def member(name):
    return lambda path: rewrite(path, {}, add=[(name, b"harm")])


def packed_rarely(path):
    rewrite(path, {}, method=zipfile.ZIP_LZMA)


def declares_more(name, size=2**40):
    """Let the table of a zip file declare this size for a member."""

    def damage(path):
        with zipfile.ZipFile(path, "a") as archive:
            archive.getinfo(name).file_size = size
            archive._didModify = True

    return damage


def unpacks_to_much(path):
    """Add a gigabyte of zeros, really, in a few megabytes."""
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("assets/harm", "w") as stream,
    ):
        for _ in range(64):
            stream.write(bytes(2**24))


def same_name_twice(path):
    content = path.read_bytes()
    rewrite(path, {}, add=[("config.jsom", b"{}")])
    content = path.read_bytes().replace(b"config.jsom", b"config.json")
    path.write_bytes(content)


def config(edit):
    """Edit a model's config: a function of the text."""
    return lambda path: rewrite(path, {"config.json": lambda content: edit(content.decode())})


def huge_layer(text):
    return _edited(text, "dense", units=10**9)


def huge_input(text):
    return text.replace("[null, 6, 6, 3]", f"[null, {10**6}, {10**6}, 3]")


def huge_tensor(text):
    """Pad the image by a few words; Keras makes the tensor when the model runs."""
    changed = json.loads(text)
    for layer in changed["config"]["layers"]:
        if layer["class_name"] == "ReLU":
            layer["class_name"] = "UpSampling2D"
            layer["config"] = {"name": layer["config"]["name"], "size": [10**5, 10**5]}
            layer.pop("build_config", None)
            break
    return json.dumps(changed)


def _edited(text, name, **entries):
    changed = json.loads(text)
    layer = next(x for x in changed["config"]["layers"] if x["config"]["name"] == name)
    layer["config"].update(entries)
    return json.dumps(changed)


def code(text):
    body = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None}}
    return _edited(text, "dense", activation=body)


def foreign_class(text):
    return _edited(
        text,
        "dense",
        activation={"module": "os", "class_name": "function", "config": "system"},
    )


def weights(edit):
    """Edit a model's weights: a function of the open HDF5 file."""

    def change(content):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, WEIGHTS)
            path.write_bytes(content)
            with h5py.File(path, "r+") as file:
                edit(file)
            return path.read_bytes()

    return lambda path: rewrite(path, {WEIGHTS: change})


KERNEL = "layers/dense/vars/0"


def link_to_a_file(file):
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/other.h5", "/kernel")


def link_to_a_name(file):
    file["other"] = h5py.SoftLink("/" + KERNEL)


def bytes_elsewhere(file):
    del file[KERNEL]
    file.create_dataset(KERNEL, (8, 5), "f4", external=[("/etc/passwd", 0, 160)])


def virtual(file):
    del file[KERNEL]
    layout = h5py.VirtualLayout((8, 5), "f4")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "kernel", (8, 5))
    file.create_virtual_dataset(KERNEL, layout)


def declared_and_not_stored(file):
    del file[KERNEL]
    file.create_dataset(KERNEL, (VAST, 5), "f4", chunks=(1024, 5), compression="gzip")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


KERAS = {
    "truncated": (truncate, "Save the model again"),
    "path-up": (member("../harm"), "'../harm' leads out"),
    "path-up-windows": (member("a\\..\\..\\harm"), "leads out"),
    "path-absolute": (member("/harm"), "'/harm' leads out"),
    "same-name-twice": (same_name_twice, "2 of its members are called 'config.json'"),
    "many-members": (
        lambda path: rewrite(path, {}, add=[(f"a/{i}", b"") for i in range(10_001)]),
        "members, which must be 1 to 10,000",
    ),
    "lzma": (packed_rarely, "neither stored nor deflated"),
    "zip-bomb": (declares_more(WEIGHTS), "it declares 1,099,"),
    "config-bomb": (config(lambda text: text + " " * 2**24), "config.json has 16,"),
    "config-deep": (config(lambda _: "[" * 10**6), "RecursionError"),
    "config-list": (config(lambda _: "[]"), "its config.json is no JSON object"),
    "code": (config(code), "code in 'dense'"),
    "foreign-class": (config(foreign_class), "Keras's own classes and functions"),
    "huge-layer": (config(huge_layer), "a variable of shape (8, 1000000000)"),
    "huge-input": (config(huge_input), "'image' makes a tensor of shape (None, 1000000, 1000000"),
    "huge-tensor": (config(huge_tensor), "makes a tensor of shape (None, 600000, 600000"),
    "hdf5-external-link": (weights(link_to_a_file), f"'/{KERNEL}' are a ExternalLink"),
    "hdf5-soft-link": (weights(link_to_a_name), "'/other' are a SoftLink"),
    "hdf5-external-bytes": (weights(bytes_elsewhere), f"'/{KERNEL}' are in another file"),
    "hdf5-virtual": (weights(virtual), f"'/{KERNEL}' are in another file"),
    "hdf5-bomb": (weights(declared_and_not_stored), "its weights declare 20,000,000,"),
}


def graph(edit):
    """Edit an ONNX model: a function of the protobuf."""

    def damage(path):
        proto = onnx.load(path)
        edit(proto)
        path.write_bytes(proto.SerializeToString())

    return damage


def kernel_of(proto):
    return max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))


def external(location):
    def edit(proto):
        tensor = kernel_of(proto)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return graph(edit)


def link_out(path):
    link = path.with_name("weights.bin")
    link.symlink_to("/etc/passwd")
    external("weights.bin")(path)


def too_short(path):
    path.with_name("weights.bin").write_bytes(b"1234")
    external("weights.bin")(path)


def pipe_for_weights(path):
    os.mkfifo(path.with_name("weights.bin"))
    external("weights.bin")(path)


def cyclic(proto):
    proto.graph.node[0].input[0] = proto.graph.node[1].output[0]


def more_elements(proto):
    kernel_of(proto).dims[0] = 2**40


def fewer_bytes(proto):
    tensor = kernel_of(proto)
    tensor.raw_data = tensor.raw_data[:-4]


def calls_itself(proto):
    _call(proto, ["a"], {"a": ["b"], "b": ["a"]})


def calls_without_number(proto):
    calls = {f"f{i}": [f"f{i + 1}"] * 2 for i in range(40)}
    _call(proto, ["f0"], {**calls, "f40": []})


def _call(proto, called, functions):
    """Let the graph's output go through functions that call functions."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("harm", 1)]
    proto.opset_import.append(imports[1])
    for name, inner in functions.items():
        nodes = _chain("p", inner, "q")
        proto.functions.append(helper.make_function("harm", name, ["p"], ["q"], nodes, imports))
    output = proto.graph.output[0].name
    _rename_output(proto, "inner")
    proto.graph.node.extend(_chain("inner", called, output))


def _chain(first, called, last):
    names = [first, *(f"t{i}" for i in range(len(called) - 1)), last]
    pairs = zip(called, names, names[1:], strict=False)
    return [helper.make_node(f, [a], [b], domain="harm") for f, a, b in pairs] or [
        helper.make_node("Relu", [first], [last])
    ]


def _rename_output(proto, name):
    output = proto.graph.output[0].name
    for node in proto.graph.node:
        node.output[:] = [name if made == output else made for made in node.output]
        node.input[:] = [name if read == output else read for read in node.input]


def vast_when_run(proto):
    """Add a sum of more zeros than there is memory for; only ONNX Runtime makes them."""
    output = proto.graph.output[0].name
    _rename_output(proto, "inner")
    proto.graph.node.extend(
        [
            helper.make_node("Constant", [], ["n"], value_ints=[VAST]),
            helper.make_node("ConstantOfShape", ["n"], ["vast"]),
            helper.make_node("ReduceSum", ["vast"], ["total"], keepdims=0),
            helper.make_node("Add", ["inner", "total"], [output]),
        ]
    )


def nested(path):
    """Add an If in an If, deeper than protobuf's own writer would go; a second graph is merged."""
    body = b""
    for _ in range(10_000):
        attribute = field(1, b"then_branch") + field(6, body) + b"\xa0\x01\x05"
        body = field(1, field(4, b"If") + field(5, attribute))
    path.write_bytes(path.read_bytes() + field(7, body))


def field(number, content):
    """Return bytes as one field of a protobuf message."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


ONNX = {
    "truncated": (truncate, ""),
    "absolute-path": (external("/etc/passwd"), "'/etc/passwd'"),
    "path-up": (external("../model.keras"), "without '..'"),
    "path-up-windows": (external("..\\model.keras"), "without '..'"),
    "link-out": (link_out, "a link leads to '/etc/passwd'"),
    "pipe": (pipe_for_weights, "an ordinary file with one name"),
    "too-short": (too_short, "must hold its bytes"),
    "cyclic": (graph(cyclic), "which nothing before it makes"),
    "more-elements": (graph(more_elements), "not "),
    "fewer-bytes": (graph(fewer_bytes), "bytes for the shape"),
    "calls-itself": (graph(calls_itself), "function 'a' calls itself"),
    "calls-without-number": (graph(calls_without_number), "its functions make 1,099,"),
    "nested": (nested, "it is truncated, or no ONNX file"),
}


def npz(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def npy(shape, content=b"", dtype="<f4"):
    """Return a file whose header declares this shape."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def good_npz(path):
    np.savez(path, image=np.zeros((2, 6, 6, 3), np.float32))


def npz_bomb(path):
    good_npz(path)
    declares_more("image.npy")(path)


def npz_path_up(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../harm.npy", npy((1,), b"1234"))


def npz_truncated(path):
    good_npz(path)
    truncate(path)


def objects(path):
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    path.write_bytes(stream.getvalue())


SAMPLES = {
    "npz-bomb": (npz_bomb, "it declares 1,099,"),
    "npz-path-up": (npz_path_up, "'../harm.npy' leads out"),
    "npz-truncated": (npz_truncated, "numpy.savez"),
    "npz-of-something-else": (
        lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "a"),
        "numpy.savez",
    ),
    "npz-member-declares-more": (
        lambda path: npz(path, image=npy((VAST, 6, 6, 3))),
        "its header declares 432,000,000,000,000 bytes",
    ),
    "npy-declares-more": (
        lambda path: path.write_bytes(npy((VAST,), b"1234")),
        "its header declares 4,000,000,000,000 bytes",
    ),
    "npy-negative": (lambda path: path.write_bytes(npy((-1, -1), b"1234")), "shape (-1, -1)"),
    "npy-objects": (objects, "it holds Python objects"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "numpy.savez"),
}
