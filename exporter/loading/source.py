"""The location of a model and the options to load it with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerguard.runtime.checkpoints.gguf import GgufFile, find_gguf, read_gguf
from layerguard.runtime.errors import ExportError, InputError


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The location of a model and the options to load it with.

    Attributes:
        name: a folder, a GGUF file, or a hub id.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: run the code in the model's repository.
        adapter: folder of a LoRA adapter to merge into the weights.
        base: the model before it was tuned, if it is tuned and not by the adapter.
    """

    name: str
    revision: str | None = None
    trust_remote_code: bool = False
    adapter: Path | None = None
    base: str | None = None

    @property
    def folder(self) -> Path | None:
        """The folder, if ``name`` is one."""
        path = Path(self.name)
        return path if path.is_dir() else None

    @property
    def gguf(self) -> Path | None:
        """The GGUF file, if ``name`` is one or a folder that holds one.

        Raises:
            ExportError: the folder holds several.
        """
        try:
            return find_gguf(Path(self.name))
        except InputError as error:
            raise ExportError(str(error)) from error

    @property
    def label(self) -> str:
        """The hub id, or the name of the folder or GGUF file; with an adapter, ``+`` its name.

        The label is never a path. For a GGUF file it is the file's name, which shows the
        quantisation; ``general.name`` of the file is seldom the model's name.
        """
        if self.gguf is not None:
            model = self.gguf.stem
        else:
            model = self.name if self.folder is None else self.folder.resolve().name
        return model if self.adapter is None else f"{model}+{self.adapter.resolve().name}"

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for every ``from_pretrained``."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    def read_gguf(self) -> GgufFile | None:
        """The header of the GGUF file; None if the source is no GGUF file.

        Raises:
            ExportError: the file cannot be read, is damaged, or is one of several in the folder.
        """
        try:
            return None if self.gguf is None else read_gguf(self.gguf)
        except InputError as error:
            raise ExportError(str(error)) from error
