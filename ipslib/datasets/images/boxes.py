"""Boxes of what is to be found in images of one's own, in a CSV; other columns are not read.

    image,x,y,width,height
    photos/0001.jpg,120,48,30,22

A box is in pixels of the image as it is shown, of level 0 of a pyramid, from its top left corner.
"""

from pathlib import Path

import numpy as np

from ipslib.datasets.images.labels import IMAGE, NUMBER, files_of, read_table
from ipslib.datasets.images.sources import PatchSource
from ipslib.errors import IpslibError

COLUMNS = ("x", "y", "width", "height")

Place = tuple[int, int]  # of a file, whatever its name


class Boxes:
    """The boxes of a CSV by image; IpslibError where a column, a number or an area is missing."""

    def __init__(self, path: Path):
        self._path, table = path, read_table(path)
        columns = table.columns
        missing = {IMAGE, *COLUMNS} - columns.keys()
        if missing:
            raise IpslibError(
                f"{path}: wanted boxes in columns {', '.join((IMAGE, *COLUMNS))}, found none of "
                f"{', '.join(sorted(missing))}; correct the heading."
            )
        rows = list(zip(*(columns[name] for name in COLUMNS), strict=True))
        for line, cells in zip(table.lines, rows, strict=True):
            if not all(map(NUMBER.fullmatch, cells)) or min(map(float, cells[2:])) <= 0:
                got = f"{', '.join(cells)} in line {line}"
                raise IpslibError(
                    f"{path}: wanted pixels as {', '.join(COLUMNS)}, and an area, got {got}."
                )
        self._numbers = np.array(rows, float).reshape(-1, 4)[:, [1, 0, 3, 2]]
        self._lines = np.array(table.lines)
        files = dict(zip(columns[IMAGE], files_of(path.parent, columns[IMAGE]), strict=True))
        places = {name: _place(file) for name, file in files.items()}
        self._rows: dict[Place, list[int]] = {}
        for row, name in enumerate(columns[IMAGE]):
            if places[name]:
                self._rows.setdefault(places[name], []).append(row)

    def of(self, file: Path) -> np.ndarray:
        """Of an image, (n, 4) of top, left, height, width, as they are written."""
        return self._numbers[self._rows.get(_place(file), [])]

    def on(self, source: PatchSource, file: Path) -> tuple[np.ndarray, int]:
        """Of an image, (n, 4) int64 in whole pixels of what is read of it, outward, cut off at its
        edges, and how many were; IpslibError for one that lies outside."""
        boxes, canvas = self.of(file) / source.downsample, np.array(source.grid.canvas)
        start, stop = np.floor(boxes[:, :2]), np.ceil(boxes[:, :2] + boxes[:, 2:])
        first, last = np.clip(start, 0, canvas), np.clip(stop, 0, canvas)
        outside = np.flatnonzero((last <= first).any(axis=1))
        if len(outside):
            line = self._lines[self._rows[_place(file)][outside[0]]]
            height, width = (np.array(source.grid.canvas) * source.downsample).round().astype(int)
            raise IpslibError(
                f"{self._path}: wanted boxes inside their images, got one in line {line} outside "
                f"{file.name}, which has {width} x {height} px; correct it."
            )
        is_cut = (boxes[:, :2] < 0) | (boxes[:, :2] + boxes[:, 2:] > canvas)
        whole = np.concatenate([first, last - first], axis=1).astype(np.int64)
        return whole, int(is_cut.any(axis=1).sum())

    def __len__(self) -> int:
        return len(self._numbers)


def _place(file: Path) -> Place | None:
    return file.stat()[1:3] if file.exists() else None
