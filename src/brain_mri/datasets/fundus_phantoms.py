"""A folder of drawn photographs of the retina, for those who have none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
from kedro.io import DatasetError

from brain_mri.datasets.located import LocatedDataset
from brain_mri.imaging.fundus_phantom import GRADES, draw_fundus
from brain_mri.storage.files import COMPLETE, open_filesystem, read_file, write_file


@dataclass(frozen=True)
class FundusPhantomFolder:
    """Draws photographs into a folder, by grades.

    Attributes:
        url: Of the folder.
        options: Of its filesystem.
    """

    url: str
    options: dict[str, Any] = field(default_factory=dict, hash=False, repr=False)

    def draw(self, count: int) -> str:
        """Draw so many, unless they are there, and return where.

        Args:
            count: Of photographs, in turn of every grade.
        """
        filesystem, path = open_filesystem(self.url, **self.options)
        folder = f"{path}/{count}"
        mark = f"{folder}/.{COMPLETE}"
        if not filesystem.exists(mark) or read_file(filesystem, mark) != str(count).encode():
            for seed in range(count):
                grade = GRADES[seed % len(GRADES)]
                photograph = draw_fundus(seed, grade=grade).photograph
                _, encoded = cv2.imencode(".png", cv2.cvtColor(photograph, cv2.COLOR_RGB2BGR))
                write_file(filesystem, f"{folder}/{grade}/{seed:05d}.png", encoded.tobytes())
            write_file(filesystem, mark, str(count).encode())
        return str(filesystem.unstrip_protocol(folder))


class FundusPhantomDataset(LocatedDataset[None, FundusPhantomFolder]):
    """The folder of drawn photographs.

    Example:
        ```yaml
        fundus_phantoms:
          type: brain_mri.datasets.FundusPhantomDataset
          filepath: ${globals:storage}/02_intermediate/fundus_phantom
        ```
    """

    def load(self) -> FundusPhantomFolder:
        """Return the handle; nothing is drawn yet."""
        filesystem, path = self._open()
        return FundusPhantomFolder(filesystem.unstrip_protocol(path), self._options)

    def save(self, data: None) -> None:
        """Refuse: the handle draws."""
        raise DatasetError(f"{self._filepath} is drawn by its handle.")

    def _exists(self) -> bool:
        return True
