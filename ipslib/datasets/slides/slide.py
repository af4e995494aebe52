"""A whole slide, read window by window: by OpenSlide, or a pyramidal TIFF by tifffile alone.

Positions are pixels of level 0, (x, y) from the top-left corner, as the field stores them; sizes
are chosen by microns per pixel, since levels and magnifications of scanners differ.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ipslib.datasets.images.decoded import tiff_source
from ipslib.datasets.images.files import FileId, file_id, load_package, opened, unreadable
from ipslib.errors import IpslibError, did_you_mean

if TYPE_CHECKING:
    from openslide import OpenSlide

READERS = ("auto", "openslide", "tifffile")
SUFFIXES = (".tif", ".tiff", ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide")
_TIFF = (".tif", ".tiff")
_PLAUSIBLE_MPP = (0.05, 20.0)  # a tag of 72 dpi, 353 µm/px, is a default and no measurement
_BAND_PIXELS = 16 * 2**20  # that are read at once for an overview
_TOLERANCE = 1.05  # a level may be this much coarser than what is asked for
_COPY_AGAIN = "copy the slide from its source again"


class Level(NamedTuple):
    """One level of a slide's pyramid."""

    shape: tuple[int, int]  # height and width in pixels
    downsample: float  # pixels of level 0 to one of its own


class Reader(Protocol):
    """What reads a kind of file: levels, largest first, and pixels."""

    levels: tuple[Level, ...]
    mpp: float | None

    def read(self, corner: tuple[int, int], level: int, shape: tuple[int, int]) -> np.ndarray: ...


class Slide:
    """A whole slide. It holds no handle, so it goes to another process or thread as it is.

    Args:
        path: the file.
        mpp: microns per pixel of level 0, for a slide that does not say; it wins over one that
            does.
        reader: `openslide`, `tifffile` (of a tiled TIFF), or `auto`: OpenSlide where it is
            installed, else tifffile.

    Raises:
        IpslibError: when the file is missing or damaged, nothing installed can read it, or its
            resolution is not known.
    """

    def __init__(self, path: str | Path, *, mpp: float | None = None, reader: str = "auto"):
        file = file_id(path)
        self.path, self.name = file.path, file.path.stem
        self._reader = _reader(file, reader)
        self.levels = self._reader.levels
        self.mpp = _checked_mpp(file.path, mpp, self._reader.mpp)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of level 0 in pixels."""
        return self.levels[0].shape

    def level_for(self, mpp: float) -> int:
        """The coarsest level that is as fine as this many microns per pixel."""
        finest = [
            i
            for i, level in enumerate(self.levels)
            if self.mpp * level.downsample <= mpp * _TOLERANCE
        ]
        return max(finest, default=0)

    def read(self, corner: tuple[int, int], *, level: int, shape: tuple[int, int]) -> np.ndarray:
        """A window; what lies outside the slide is white.

        Args:
            corner: x and y of its top-left pixel at level 0.
            level: of the pyramid.
            shape: height and width in pixels of the level.

        Returns:
            (height, width, 3) uint8.
        """
        return self._reader.read(corner, level, shape)

    def overview(self, mpp: float) -> np.ndarray:
        """The whole slide at this many microns per pixel, (H, W, 3) uint8, read band by band."""
        scale, level = mpp / self.mpp, self.level_for(mpp)
        height, width = (max(1, round(side / scale)) for side in self.shape)
        (source_height, source_width), downsample = self.levels[level]
        rows_per_row = source_height / height
        n_rows = max(1, int(_BAND_PIXELS / source_width / rows_per_row))
        bands = []
        for top in range(0, height, n_rows):
            bottom = min(top + n_rows, height)
            begin, end = top * rows_per_row, min(bottom * rows_per_row, source_height)
            first, last = int(begin), int(np.ceil(end))
            corner = (0, round(first * downsample))
            band = self.read(corner, level=level, shape=(last - first, source_width))
            box = (0, begin - first, source_width, end - first)
            small = Image.fromarray(band).resize((width, bottom - top), Image.Resampling.BOX, box)
            bands.append(np.asarray(small))
        return np.concatenate(bands)


def _checked_mpp(path: Path, given: float | None, stored: float | None) -> float:
    low, high = _PLAUSIBLE_MPP
    if given is not None:
        if not low <= given <= high:
            raise IpslibError(
                f"mpp: wanted {low:g} to {high:g} microns per pixel of level 0, got {given:g}."
            )
        return float(given)
    if stored is None or not low <= stored <= high:
        found = "none" if stored is None else f"{stored:.4g} microns per pixel"
        raise IpslibError(
            f"{path}: wanted the slide's resolution, got {found}; give mpp, the microns per pixel "
            "of its largest level."
        )
    return float(stored)


def _reader(file: FileId, reader: str) -> Reader:
    if reader not in READERS:
        raise IpslibError(f"reader: no reader {reader!r}{did_you_mean(reader, READERS)}.")
    is_tiff = file.path.suffix.lower() in _TIFF
    if reader == "tifffile" or (reader == "auto" and is_tiff and not has_openslide()):
        return _TiffReader(file)
    return _OpenSlideReader(file)


def has_openslide() -> bool:
    """Whether OpenSlide can be used here, package and library."""
    try:
        import openslide  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


class _OpenSlideReader:
    """Reads whatever OpenSlide does."""

    def __init__(self, file: FileId):
        self._file = file
        slide = opened(_open_openslide, file)
        sizes = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
        self.levels = tuple(Level((height, width), scale) for (width, height), scale in sizes)
        stored = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        self.mpp = None if None in stored else sum(map(float, stored)) / 2

    def read(self, corner: tuple[int, int], level: int, shape: tuple[int, int]) -> np.ndarray:
        slide = opened(_open_openslide, self._file)
        try:
            window = slide.read_region(corner, level, shape[::-1])
        except Exception as error:  # OpenSlideError, and PIL's own
            raise unreadable(self._file.path, error, _COPY_AGAIN) from error
        white = Image.new("RGB", window.size, (255, 255, 255))
        white.paste(window, mask=window.getchannel("A"))  # where no tile is stored
        return np.asarray(white)


def _open_openslide(path: Path) -> "OpenSlide":
    try:
        import openslide
    except (ImportError, OSError) as error:
        raise IpslibError(
            f"{path}: wanted OpenSlide to read it, found none; pip install openslide-python "
            "openslide-bin, or convert the slide to a tiled TIFF."
        ) from error
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise unreadable(path, error, f"{_COPY_AGAIN}, or check its format") from error


class _TiffReader:
    """Reads a pyramidal TIFF of tiles; of several images in it, the first."""

    def __init__(self, file: FileId):
        self._file = file
        tifffile = load_package("tifffile", file.path)
        try:
            with tifffile.TiffFile(file.path) as tiff:
                series = tiff.series[0]
                shapes = [level.shape[:2] for level in series.levels]
                page = series.levels[0].pages[0].aspage()
                unit = page.resolutionunit
                density = page.get_resolution("micrometer") if unit in (2, 3) else (0, 0)
        except Exception as error:  # damage can show anywhere in the parser
            raise unreadable(file.path, error, _COPY_AGAIN) from error
        largest = shapes[0]
        self.levels = tuple(
            Level(shape, (largest[0] / shape[0] + largest[1] / shape[1]) / 2) for shape in shapes
        )
        self.mpp = sum(1 / each for each in density) / 2 if all(density) else None
        # The grid of a source is not used here, only its windows.
        self._images = [
            tiff_source(file.path, patch_size=256, level=level) for level in range(len(shapes))
        ]
        self._check_colours()

    def read(self, corner: tuple[int, int], level: int, shape: tuple[int, int]) -> np.ndarray:
        (height, width), downsample = self.levels[level]
        left, top = (round(place / downsample) for place in corner)
        out = np.full((*shape, 3), 255, np.uint8)
        rows = slice(max(top, 0), min(top + shape[0], height))
        cols = slice(max(left, 0), min(left + shape[1], width))
        if rows.start < rows.stop and cols.start < cols.stop:
            inside = out[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
            inside[...] = self._images[level].window(rows, cols)[..., :3]
        return out

    def _check_colours(self) -> None:
        image = self._images[0]
        if image.patch_shape[0] < 3 or str(image.dtype) != "torch.uint8":
            raise IpslibError(
                f"{self._file.path}: wanted a slide in RGB of 8 bits, got "
                f"{image.patch_shape[0]} channels of {str(image.dtype).removeprefix('torch.')}; "
                "convert it to RGB."
            )
