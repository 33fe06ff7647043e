"""Catalog entries that are one file: JSON, a figure, a page.

They differ from kedro-datasets' entries of the same kind in one point: what they write appears whole (beside,
verified, renamed) on every filesystem, so a broken-off run never leaves half a file that a resumed run would
take for a result.
"""

from __future__ import annotations

import base64
import io
import json
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Generic

from kedro_datasets._typing import ImagePreview, JSONPreview

from brain_mri.datasets.located import Loaded, LocatedDataset, Saved
from brain_mri.storage.files import read_file, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FileDataset(LocatedDataset[Saved, Loaded], Generic[Saved, Loaded]):
    """One file on any filesystem. Subclasses say how a value becomes bytes and back."""

    @abstractmethod
    def _encode(self, data: Saved) -> bytes: ...

    @abstractmethod
    def _decode(self, content: bytes) -> Loaded: ...

    def load(self) -> Loaded:
        """Read and decode the file."""
        return self._decode(read_file(*self._open()))

    def save(self, data: Saved) -> None:
        """Encode and write the file: beside, verified, renamed."""
        write_file(*self._open(), self._encode(data))

    def _exists(self) -> bool:
        filesystem, path = self._open()
        return bool(filesystem.isfile(path))


class JsonDataset(FileDataset[Any, Any]):
    """A JSON document: indented, keys in the order given, floats as Python writes them.

    Example:
        ```yaml
        metrics:
          type: brain_mri.datasets.JsonDataset
          filepath: ${globals:storage}/08_reporting/metrics.json
        ```

        >>> dataset = JsonDataset(filepath="/tmp/metrics.json")
        >>> dataset.save({"accuracy": 0.98})
        >>> dataset.load()
        {'accuracy': 0.98}
    """

    def _encode(self, data: Any) -> bytes:
        return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()

    def _decode(self, content: bytes) -> Any:
        return json.loads(content)

    def preview(self) -> JSONPreview:
        """The document, for Kedro-Viz."""
        return JSONPreview(json.dumps(self.load()))


class OptionalJsonDataset(JsonDataset):
    """A JSON document that may not be there: it loads as `{}` then.

    Example:
        ```yaml
        section_benchmarks:
          type: brain_mri.datasets.OptionalJsonDataset
          filepath: ${globals:storage}/08_reporting/sections/benchmarks.json
        ```
    """

    def load(self) -> Any:
        """Read and decode the file."""
        return super().load() if self._exists() else {}


class FigureDataset(FileDataset["Figure | bytes", bytes]):
    r"""A figure: saved from Matplotlib, loaded as the bytes of its PNG.

    Example:
        ```yaml
        confusion_matrix:
          type: brain_mri.datasets.FigureDataset
          filepath: ${globals:storage}/08_reporting/confusion_matrix.png
        ```

        >>> from matplotlib.figure import Figure
        >>> dataset = FigureDataset(filepath="/tmp/figure.png")
        >>> dataset.save(Figure(figsize=(2, 1)))
        >>> dataset.load()[:4]
        b'\x89PNG'
    """

    def _encode(self, data: Figure | bytes) -> bytes:
        if isinstance(data, bytes):
            return data
        buffer = io.BytesIO()
        # Without its usual "Software" entry the same figure gives the same bytes under every Matplotlib.
        data.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
        return buffer.getvalue()

    def _decode(self, content: bytes) -> bytes:
        return content

    def preview(self) -> ImagePreview:
        """The picture, for Kedro-Viz."""
        return ImagePreview(base64.b64encode(self.load()).decode())


class HtmlDataset(FileDataset[str, str]):
    """An HTML page as text (UTF-8).

    Example:
        ```yaml
        report:
          type: brain_mri.datasets.HtmlDataset
          filepath: ${globals:storage}/08_reporting/report.html
        ```

        >>> dataset = HtmlDataset(filepath="/tmp/report.html")
        >>> dataset.save("<p>98 %</p>")
        >>> dataset.load()
        '<p>98 %</p>'
    """

    def _encode(self, data: str) -> bytes:
        return data.encode()

    def _decode(self, content: bytes) -> str:
        return content.decode()
