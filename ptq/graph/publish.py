"""A model under way: written and verified in a folder of its own, then moved into place at once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import onnx_ir as ir

from ptq.errors import ConfigError, VerificationError
from ptq.graph.load import model_files, model_size
from ptq.graph.save import save_model


class Draft:
    """The quantized model until it is proved.

    It lies in a hidden folder beside its destination, on the same file system, so that publishing
    is a rename. Whatever ends the ``with`` block, an error or Ctrl-C, the folder goes.

    Attributes:
        destination: where the model will appear.
        path: where it is now; external data lies beside it.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination

    def __enter__(self) -> Draft:
        """Make the folder.

        Raises:
            ConfigError: the destination's folder does not exist or cannot be written to.
        """
        parent = self.destination.parent
        try:
            folder = tempfile.mkdtemp(prefix=".ptq-", dir=parent)
        except OSError as error:
            raise ConfigError(
                f"cannot write to '{parent}': {error.strerror}; choose another place with -o"
            ) from error
        self.path = Path(folder) / self.destination.name
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the folder and what is left in it."""
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def save(self, model: ir.Model) -> None:
        """Write the model, again if need be."""
        save_model(model, self.path)

    def check(self) -> None:
        """Run the ONNX checker over the file.

        Raises:
            VerificationError: it finds a fault.
        """
        check_file(self.path)

    @property
    def files(self) -> list[Path]:
        """The model file and its external data."""
        return model_files(self.path)

    @property
    def size_bytes(self) -> int:
        """Size of the model with its external data."""
        return model_size(self.path)

    def publish(self) -> None:
        """Move the files into place: data first, so that the model never appears without it."""
        for file in reversed(self.files):
            file.replace(self.destination.with_name(file.name))


def check_file(path: Path) -> None:
    """Run the ONNX checker over a model file.

    Raises:
        VerificationError: it finds a fault.
    """
    import onnx.checker

    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise VerificationError(f"the ONNX checker refuses the quantized model: {first}") from error
