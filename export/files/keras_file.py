"""Open Keras models that a stranger may have made, and write them.

A `.keras` file, or a whole model in HDF5 as `model.save("....h5")` writes it, is opened in Keras's
safe mode, so that it runs no code. It may not declare far more than it holds (`archives.py`,
`stored_weights.py`, `model_limits.py`). Whatever is wrong with it becomes one `ExportError`.
"""

import dataclasses
import inspect
import io
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExportError, one_line
from .archives import ArchiveError, require_modest, words_of
from .hdf5_file import is_hdf5, read_hdf5_config
from .paths import require_file

if TYPE_CHECKING:
    import keras

__all__ = [
    "KerasFile",
    "input_names_in",
    "open_keras_file",
    "output_names_in",
    "write_keras_model",
]

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
LARGEST_CONFIG = 2**24  # bytes; the largest of keras.applications has 2**20
OPTIMIZER_LOST = "variable loading for optimizer"  # in what Keras then warns of
# Layers that run what a pickle or another folder holds; older Keras builds them in safe mode, too.
RUNNING_OTHERS = ("TFSMLayer", "TorchModuleWrapper")
UNKNOWN = re.compile(r"Could not locate (class|function) '([^']{1,100})'")  # says Keras


def open_keras_file(path: Path, *, unsafe: bool = False) -> "KerasFile":
    """Raise `ExportError` unless `path` looks like a Keras model; needs no TensorFlow.

    Args:
        path: A file written by `model.save("....keras")` or `model.save("....h5")`.
        unsafe: Whether it may hold Python code, such as a Lambda's, which loading it then runs.
    """
    require_file(path, "MODEL.keras")
    if path.suffix == ".onnx":
        raise ExportError(
            f"MODEL.keras must be a Keras model. Received: {str(path)!r}, an ONNX file. "
            "`keras-bn fold` folds one, and `keras-bn check` compares two."
        )
    try:
        config = read_hdf5_config(path, LARGEST_CONFIG) if is_hdf5(path) else _config_of(path)
        if not isinstance(config, dict):
            raise ArchiveError(f"its {CONFIG} is no JSON object")
    except ModuleNotFoundError:
        raise
    except Exception as e:  # zipfile, zlib and json raise many kinds, RecursionError included
        raise _not_a_model(path, words_of(e)) from e
    code = [] if unsafe else _code_in(config)
    if code:
        raise _holds_code(path, f"code in {', '.join(map(repr, code))}, as a Lambda has it")
    return KerasFile(path, config, unsafe)


@dataclasses.dataclass(frozen=True)
class KerasFile:
    """A file that looks like a Keras model, and can be loaded.

    Attributes:
        path: Where it is.
        config: The model's architecture, as the file states it.
        unsafe: Whether it may run Python code of its own.
    """

    path: Path
    config: dict[str, Any]
    unsafe: bool

    @property
    def input_names(self) -> list[str]:
        """Names of a functional or sequential model's inputs; none where they are not told."""
        return input_names_in(self.config)

    @property
    def output_names(self) -> list[str]:
        """Likewise what its outputs may be called: layers, and keys of a dict."""
        return output_names_in(self.config)

    def load(self) -> "keras.Model":
        """Load the model, in safe mode unless it may run code.

        Raises:
            ExportError: If the file is damaged, unsafe, or uses unknown classes.
            ExportError: If it declares far more than it holds, or leads to other files.
        """
        path = self.path
        try:
            return self._load(compiled=False)
        except Exception as e:  # a damaged file can make Keras, h5py, zipfile or json raise any
            if not self.unsafe and "safe_mode=False" in str(e):  # as all that Keras refuses says
                raise _holds_code(path, words_of(e)) from e
            unknown = UNKNOWN.search(str(e))
            if unknown:
                raise _holds_unknown(path, *unknown.groups()) from e
            raise _not_a_model(path, words_of(e)) from e

    def load_compiled(self) -> tuple["keras.Model", str | None]:
        """Load the model with its loss and optimizer, or else without.

        Returns:
            The model, and why it is without its loss or its optimizer's state; None if it has both.

        Raises:
            ExportError: As `load`.
        """
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.filterwarnings("always", f".*{OPTIMIZER_LOST}")
                model = self._load(compiled=True)
        except Exception as e:  # such as a loss of a class that is not known here
            return self.load(), f"its loss and optimizer cannot be restored: {one_line(e)}"
        lost = None if model.compiled else "the model was saved without loss and optimizer"
        for found in caught:
            if OPTIMIZER_LOST in str(found.message):
                lost = f"its optimizer starts anew: {' '.join(str(found.message).split())}"
            else:
                warnings.showwarning(found.message, found.category, found.filename, found.lineno)
        return model, lost

    def _load(self, *, compiled: bool) -> "keras.Model":
        import keras
        from keras.src.legacy.saving.legacy_h5_format import load_model_from_hdf5

        import keras_bn.layer  # noqa: F401  registers the layer

        from .model_limits import limited_variables, require_modest_tensors
        from .stored_weights import declared_in

        options: dict[str, Any] = {"compile": compiled, "safe_mode": not self.unsafe}
        if is_hdf5(self.path):
            with self.path.open("rb") as stream:
                stored = declared_in(stream, self.path.stat().st_size)
            load = load_model_from_hdf5  # whatever the file is called
            has_safe_mode = "safe_mode" in inspect.signature(load).parameters
            if not has_safe_mode and options.pop("safe_mode"):
                raise ArchiveError(
                    f"Keras {keras.__version__} has no safe mode for HDF5. Install a newer one, or "
                    "pass --unsafe if you trust whoever made the file"
                )
        else:
            with zipfile.ZipFile(self.path) as archive:
                content = archive.read(WEIGHTS)
                stored = declared_in(io.BytesIO(content), len(content))
            del content
            load = keras.models.load_model
        with limited_variables(stored):
            model = load(self.path, **options)
        require_modest_tensors(model)
        return model


def _config_of(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        missing = {CONFIG, WEIGHTS} - set(archive.namelist())
        if missing:
            raise ArchiveError(f"it has no {' and no '.join(sorted(missing))}")
        require_modest(archive, path.stat().st_size)
        size = archive.getinfo(CONFIG).file_size
        if size > LARGEST_CONFIG:
            raise ArchiveError(f"its {CONFIG} has {size:,} bytes, more than {LARGEST_CONFIG:,}")
        return json.loads(archive.read(CONFIG))


def input_names_in(config: dict[str, Any]) -> list[str]:
    """Return the names of the inputs that an architecture tells, if it is of layers by name."""
    if config.get("class_name") == "Sequential":
        first = _layer_of_sequence(config, 0)
        return [str(first["config"]["name"])] if first.get("class_name") == "InputLayer" else []
    layers, _ = _layers_and_keys(config, "input_layers")
    return layers


def output_names_in(config: dict[str, Any]) -> list[str]:
    """Return likewise what the outputs may be called."""
    if config.get("class_name") == "Sequential":
        last = _layer_of_sequence(config, -1).get("config")
        return [str(last.get("name"))] if isinstance(last, dict) else []
    layers, keys = _layers_and_keys(config, "output_layers")
    return layers + keys


def _layer_of_sequence(config: dict[str, Any], place: int) -> dict[str, Any]:
    inner = config.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else None
    layer = layers[place] if layers and isinstance(layers, list) else None
    return layer if isinstance(layer, dict) else {}


def _layers_and_keys(config: dict[str, Any], which: str) -> tuple[list[str], list[str]]:
    """Return the layers in a structure of a functional config, and the keys of its dicts."""
    inner = config.get("config")
    layers: list[str] = []
    keys: list[str] = []
    waiting = [inner.get(which) if isinstance(inner, dict) else None]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list) and len(part) == 3 and isinstance(part[0], str):
            layers.append(part[0])
        elif isinstance(part, list | dict):
            keys += part if isinstance(part, dict) else []
            waiting += reversed(list(part.values() if isinstance(part, dict) else part))
    return layers, keys


def _code_in(config: Any) -> list[str]:
    """Return the names of the layers whose config holds code or leads to some."""
    found: list[str] = []
    waiting = [value for key, value in config.items() if key != "compile_config"]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if any(
                isinstance(v, dict) and v.get("class_name") == "__lambda__" for v in part.values()
            ):
                found.append(str(part.get("name", "a function")))
            if part.get("class_name") in RUNNING_OTHERS:
                found.append(part["class_name"])
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return sorted(set(found))


def _not_a_model(path: Path, why: str) -> ExportError:
    return ExportError(
        "MODEL.keras must be a whole file written by model.save('....keras'). "
        f"Received: {str(path)!r}: {why}. Save the model again."
    )


def _holds_unknown(path: Path, kind: str, name: str) -> ExportError:
    return ExportError(
        "MODEL.keras must hold Keras's own classes and functions, because this command imports no "
        f"others. Received: {str(path)!r}, with the {kind} {name!r}. In Python, import what "
        "defines it, load the model with keras.saving.load_model, and call the functions of "
        "keras_bn.export on that."
    )


def _holds_code(path: Path, what: str) -> ExportError:
    return ExportError(
        f"MODEL.keras must hold no Python code. Received: {str(path)!r}: {what}. "
        "Pass --unsafe to run that code, if you trust whoever made the file."
    )


def write_keras_model(model: "keras.Model", path: Path) -> int:
    """Write a Keras model.

    Args:
        model: The model.
        path: The file to write, ending in ".keras", such as the one that `replacing` gives.

    Returns:
        The file's size in bytes.

    Raises:
        ExportError: If the file cannot be written, such as on a full disk.
    """
    from .whole_file import translated  # imports onnx

    with translated(path):
        model.save(path)
        return path.stat().st_size
