import subprocess
import sys

import keras_bn
import keras_bn.export


def imported(statement, *packages):
    """Return which packages a statement imports in a new process."""
    code = f"{statement}\nimport sys\nprint(*(p for p in {packages!r} if p in sys.modules))"
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_keras_bn_has_exactly_these_names():
    assert keras_bn.__all__ == [
        "BatchNormalization",
        "Cause",
        "ConversionReport",
        "CovariateShiftMonitor",
        "CovariateShiftReport",
        "GapReport",
        "ImportanceWeights",
        "Kernel",
        "StatisticsReport",
        "__version__",
        "adapt_statistics",
        "estimate_population_statistics",
        "importance_weights",
        "kernel",
        "measure_covariate_shift",
        "train_inference_gap",
        "use_fused_batch_norm",
        "use_keras_batch_norm",
    ]
    assert all(hasattr(keras_bn, name) for name in keras_bn.__all__)
    assert not hasattr(keras_bn, "no_such_name")


def test_export_has_exactly_these_names():
    assert keras_bn.export.__all__ == [
        "ExportError",
        "ExportReport",
        "Fold",
        "FoldReport",
        "OutputParity",
        "ParityError",
        "ParityReport",
        "Reason",
        "Refusal",
        "check_parity",
        "export_onnx",
        "fold_batch_norms",
    ]
    assert all(hasattr(keras_bn.export, name) for name in keras_bn.export.__all__)
    assert not hasattr(keras_bn.export, "no_such_name")


def test_import_keras_bn_imports_no_onnx():
    packages = ("onnx", "onnx_ir", "onnxruntime", "tf2onnx", "keras_bn.layer")
    assert imported("import keras_bn", *packages) == ["keras_bn.layer"]


def test_layer_is_registered_by_importing_keras_bn():
    code = (
        "import keras_bn, keras\n"
        "print(keras.saving.get_registered_object('keras_bn>BatchNormalization').__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "keras_bn.layer"


def test_command_line_starts_without_tensorflow():
    statement = "import sys; sys.argv = ['keras-bn']; import keras_bn"
    statement += "; import keras_bn.export.__main__ as entry; entry.program()"
    assert imported(statement, "tensorflow", "onnx", "keras_bn.layer") == []
    assert imported(f"{statement}; keras_bn.BatchNormalization", "keras_bn.layer")


def test_layer_is_registered_where_another_package_is_run_as_a_module(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import keras_bn")
    (tmp_path / "package" / "main.py").write_text(
        "import keras\nprint(keras.saving.get_registered_object('keras_bn>BatchNormalization'))"
    )
    command = [sys.executable, "-m", "package.main"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "BatchNormalization" in done.stdout


def test_missing_extra_is_named():
    code = (
        "import sys; sys.modules['onnx_ir'] = None\n"
        "import keras_bn.export\n"
        "try: keras_bn.export.fold_batch_norms\n"
        "except ModuleNotFoundError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'keras-bn[export]'" in done.stdout
    assert "'onnx_ir'" in done.stdout


def test_other_backend_is_refused():
    # The other backends are not installed; this is what Keras would answer if one were.
    code = "import keras; keras.backend.backend = lambda: 'numpy'; import keras_bn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Received: backend='numpy'" in done.stderr
