"""A whole slide, read window by window: by OpenSlide, or by tifffile what OpenSlide does not know.

Positions are pixels of level 0, (x, y) from the top-left corner, as the field stores them; sizes
are chosen by microns per pixel, since levels and magnifications of scanners differ.
"""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import numpy as np
import tifffile
from PIL import Image

from ipslib.datasets.images.decoded import tiff_source
from ipslib.datasets.images.image import FileId, file_id, is_tiff, opened, unreadable
from ipslib.errors import IpslibError, did_you_mean

if TYPE_CHECKING:
    from openslide import OpenSlide

READERS = ("auto", "openslide", "tifffile")
_PLAUSIBLE_MPP = (0.05, 20.0)  # a tag of 72 dpi, 353 µm/px, is a default and no measurement
_TOLERANCE = 1.05  # a level may be this much coarser than asked for, resolutions this unlike
_MICRONS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0}  # two signs for micro
_MICRONS |= {"nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25_400.0, "in": 25_400.0}
_BAND_PIXELS = 16 * 2**20  # that are read at once for an overview
_YCBCR_JPEG2000 = 33003  # Aperio's compression, of which tifffile gives YCbCr as it is stored
_COPY_AGAIN = "copy the slide from its source again"

Resolution = tuple[float, float]  # microns per pixel of level 0, along x and y


class Level(NamedTuple):
    """One level of a slide's pyramid."""

    shape: tuple[int, int]  # height and width in pixels
    downsample: float  # pixels of level 0 to one of its own


class Slide:
    """A whole slide. It holds no handle, so it goes to another process or thread as it is.

    Args:
        path: the file.
        mpp: microns per pixel of level 0, for a slide that does not state them. A slide that
            states others is believed, with a warning.
        reader: `openslide`, `tifffile` (of TIFF alone), or `auto`: OpenSlide, and tifffile for a
            TIFF that OpenSlide does not read.

    Attributes:
        levels: of its pyramid, the largest first.
        shape: height and width of level 0 in pixels.
        mpp: microns per pixel of level 0.
        states_mpp: whether they are the slide's own.

    Raises:
        IpslibError: when the file is missing or damaged, nothing installed can read it, or its
            resolution is not known.
    """

    def __init__(self, path: str | Path, *, mpp: float | None = None, reader: str = "auto"):
        file = file_id(path)
        self.path, self.name = file.path, file.path.stem
        self._reader = _reader(file, reader)
        self.levels = self._reader.levels
        self.shape = height, width = self.levels[0].shape
        described, tagged, n_pixels, odd = _stated_by_tiff(file.path)
        if n_pixels > height * width:
            odd = f"one of {width} x {height} px before a larger one"
        elif not self._reader.is_plain:
            odd = ""
        if odd:
            raise IpslibError(
                f"{file.path}: wanted the slide as the first image, of 8 or 16 bits, got {odd}; "
                "save it to a file of its own, as one image in RGB of 8 bits."
            )
        # The first that can be one is believed: tags are often a default.
        stated = [*described, *self._reader.resolutions, *tagged]
        self.mpp, self.states_mpp = _believed(file.path, stated, mpp)

    def level_for(self, mpp: float) -> int:
        """The coarsest level that is as fine as this many microns per pixel."""
        coarsest = _TOLERANCE * mpp / self.mpp
        fit = [i for i, level in enumerate(self.levels) if level.downsample <= coarsest]
        return max(fit, default=0)

    def read(self, corner: tuple[int, int], *, level: int, shape: tuple[int, int]) -> np.ndarray:
        """A window of a level by its top-left corner, x and y at level 0, and its height and width
        in pixels of the level: (height, width, 3) uint8; white outside the slide, and where nothing
        is stored."""
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


def _believed(path: Path, stated: list[Resolution], given: float | None) -> tuple[float, bool]:
    """Microns per pixel, and whether the slide states them."""
    low, high = _PLAUSIBLE_MPP
    if given is not None and not low <= given <= high:
        raise IpslibError(f"mpp: wanted {low:g} to {high:g} microns per pixel, got {given:g}.")
    plausible = [each for each in stated if all(low <= axis <= high for axis in each)]
    if not plausible:
        if given is not None:
            return float(given), False
        found = f"{stated[0][0]:.6g} microns per pixel" if stated else "none"
        raise IpslibError(
            f"{path}: wanted the slide's resolution, got {found}; give the microns per pixel of "
            "its largest level (--slide-mpp; mpp of Slide, slide_mpp of prepare_slides)."
        )
    x, y = plausible[0]
    if not _alike(x, y):
        raise IpslibError(
            f"{path}: wanted square pixels, got {x:.4g} x {y:.4g} microns; resample the slide."
        )
    mpp = (x + y) / 2
    if given is not None and not _alike(mpp, given):
        warnings.warn(
            f"{path}: states {mpp:.4g} microns per pixel, which is believed, and not the "
            f"{given:.4g} that were given.",
            stacklevel=3,
        )
    return mpp, True


def _alike(one: float, other: float) -> bool:
    return max(one, other) <= _TOLERANCE * min(one, other)


def _stated_by_tiff(path: Path) -> tuple[list[Resolution], list[Resolution], int, str]:
    """What a TIFF says of itself: its resolution as OME-XML, Aperio or ImageJ describe it, and by
    its tags; the pixels of its largest image; and what else than one image of whole numbers the
    first one is. Nothing of another or damaged file."""
    described, tagged = [], []
    try:
        with tifffile.TiffFile(path) as tiff:
            page, first = tiff.pages.first, tiff.series[0]
            unit = (tiff.imagej_metadata or {}).get("unit")
            if tiff.ome_metadata:
                said = ElementTree.fromstring(tiff.ome_metadata).find(".//{*}Pixels").attrib
                sizes = [float(said.get(f"PhysicalSize{axis}", 0)) for axis in "XY"]
                units = [said.get(f"PhysicalSize{axis}Unit", "µm") for axis in "XY"]
                described.append(tuple(map(_in_microns, sizes, units)))
            if aperio := re.search(r"\bMPP\s*=\s*(\d*[.,]?\d+)", page.description):
                described.append((float(aperio[1].replace(",", ".")),) * 2)
            if unit is not None and all(page.resolution):
                unit = str(unit).replace("\\u00B5", "µ")
                described.append(tuple(_in_microns(1 / each, unit) for each in page.resolution))
            if page.resolutionunit in (2, 3) and all(page.resolution):
                tagged.append(tuple(1 / each for each in page.get_resolution("micrometer")))
            n_pixels = max(s.keyframe.imagelength * s.keyframe.imagewidth for s in tiff.series)
            odd = f"a stack of {first.shape} (axes {first.axes})" if len(first.pages) > 1 else ""
            odd = odd if first.dtype in ("uint8", "uint16") else f"pixels of {first.dtype}"
            return [each for each in described if all(each)], tagged, n_pixels, odd
    except Exception:  # damage can show anywhere in the parser; the reader says so
        return [], [], 0, ""


def _in_microns(size: float, unit: str) -> float:
    return size * _MICRONS.get(unit, 0.0)


def _reader(file: FileId, reader: str) -> "_OpenSlideReader | _TiffReader":
    if reader not in READERS:
        raise IpslibError(f"reader: no reader {reader!r}{did_you_mean(reader, READERS)}.")
    if reader != "tifffile":
        try:
            return _OpenSlideReader(file)
        except IpslibError:
            if reader == "openslide" or not is_tiff(file.path):
                raise
    return _TiffReader(file)


class _OpenSlideReader:
    """Reads whatever OpenSlide does."""

    def __init__(self, file: FileId):
        self._file = file
        slide = opened(_open_openslide, file)
        sizes = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
        self.levels = tuple(Level((height, width), scale) for (width, height), scale in sizes)
        # Of a plain TIFF OpenSlide would show the first page, whatever the others are.
        self.is_plain = slide.properties.get("openslide.vendor") == "generic-tiff"
        stored = [slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        self.resolutions = [] if None in stored else [tuple(map(float, stored))]

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
    except openslide.OpenSlideUnsupportedFormatError as error:
        remedy = "leave the reader to auto" if is_tiff(path) else _COPY_AGAIN
        raise IpslibError(
            f"{path}: wanted a slide that OpenSlide reads, got another file; {remedy}, or convert "
            "the slide to a tiled TIFF."
        ) from error
    except openslide.OpenSlideError as error:
        raise unreadable(path, error, f"{_COPY_AGAIN}, or check its format") from error


class _TiffReader:
    """Reads a TIFF, with its pyramid where it has one; of several images in it, the first."""

    resolutions = ()  # those of a TIFF are known without it
    is_plain = False  # it refuses itself what it cannot show

    def __init__(self, file: FileId):
        try:
            with tifffile.TiffFile(file.path) as tiff:
                pages = [level.keyframe for level in tiff.series[0].levels]
                is_foreign = tiff.is_bif or tiff.is_scn or pages[0].compression == _YCBCR_JPEG2000
                is_foreign |= any(0 in page.databytecounts for page in pages)
        except Exception as error:  # damage can show anywhere in the parser
            raise unreadable(file.path, error, _COPY_AGAIN) from error
        if is_foreign:
            raise IpslibError(
                f"{file.path}: wanted one whole image in RGB, got a scanner's mosaic, YCbCr in "
                "JPEG 2000 or gaps, which OpenSlide alone puts right; use reader openslide."
            )
        shapes = [(page.imagelength, page.imagewidth) for page in pages]
        scales = [(shapes[0][0] / height + shapes[0][1] / width) / 2 for height, width in shapes]
        self.levels = tuple(map(Level, shapes, scales))
        # The grid of a source is not used here, only its windows.
        self._images = [
            tiff_source(file.path, patch_size=256, level=level) for level in range(len(shapes))
        ]
        n_channels, dtype = self._images[0].patch_shape[0], self._images[0].dtype
        if n_channels < 3 or str(dtype) != "torch.uint8":
            raise IpslibError(
                f"{file.path}: wanted a slide in RGB of 8 bits, got {n_channels} channels of "
                f"{dtype}; convert it to RGB."
            )

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
