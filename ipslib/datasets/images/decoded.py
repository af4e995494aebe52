"""Images in files that have to be decoded: TIFF in parts, all others whole.

What a file's header says of its samples becomes `Samples`, so that every file gives the pixels
that its own viewer shows, or is refused by name. README.md beside lists what is read and how.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from ipslib.datasets.images.image import (
    PIECES,
    ArraySource,
    FileId,
    ImageSource,
    Samples,
    check_piece,
    file_id,
    opened,
    unreadable,
)
from ipslib.errors import IpslibError

if TYPE_CHECKING:
    from tifffile import TiffPage

_TILED = "save it anew as a tiled TIFF"
_AGAIN = f"copy it from its source again, or {_TILED}"

_PHOTOS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # that Pillow may open
_ORIENTATION, _PHOTOMETRIC = 274, 262  # tags; EXIF has the first too
_GREY_PNG = (0, 4)  # colour types
_PILLOW_SETTINGS = (
    (Image, "MAX_IMAGE_PIXELS", None),
    (PngImagePlugin, "MAX_TEXT_CHUNK", 2**30),
    (PngImagePlugin, "MAX_TEXT_MEMORY", 2**30),
    (ImageFile, "LOAD_TRUNCATED_IMAGES", False),
)
_pillow = Lock()  # of its settings

_INVERTED, _GREY, _RGB, _PALETTE, _INKS, _YCBCR = 0, 1, 2, 3, 5, 6  # photometric interpretations
_SAMPLES = {_INVERTED: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _INKS: 4, _YCBCR: 3}
_ALPHA = {1: "premultiplied", 2: "straight"}  # extra samples
_NO_IMAGE = 1 | 4  # a preview, a mask: bits of the kind of a page
_JPEG = {6, 7, 34892, 33007}  # compressions whose tables stand apart from the tiles


class PhotoSource(ImageSource):
    """A JPEG, PNG, BMP, GIF or WebP, decoded when its first patch is read, and again when the
    cache had to give it up. IpslibError when it is an animation, or too large to be decoded whole.
    """

    def __init__(self, path: str | Path, **cut: int | None):
        self._file = file_id(path)
        path = self._file.path
        with _photo(path) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":  # of a camera
                got = f"an animation of {image.n_frames}"
                raise IpslibError(f"{path}: wanted one image, got {got}; save the one that counts.")
            (width, height), orientation = image.size, _orientation(image)
            grey, alpha = image.mode in ("1", "L", "LA"), image.has_transparency_data
            self._is_png, self._mode = image.format == "PNG", ("L" if grey else "RGB") + "A" * alpha
        dtype = np.dtype(np.uint8)
        if self._is_png:
            with path.open("rb") as file:
                bits, kind = file.read(26)[24:]
            grey, dtype = kind in _GREY_PNG, np.dtype(np.uint16 if bits == 16 else np.uint8)
        shape = height, width, (1 if grey else 3) + alpha
        white, alpha = np.iinfo(dtype).max, "straight" * alpha
        samples = Samples(white, alpha=alpha, orientation=orientation)
        super().__init__(str(path), shape, dtype, samples, **cut)
        check_piece(self.name, prod(shape) * dtype.itemsize, _TILED)

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        into[...] = PIECES.get(self._file, self._decode)[rows, cols]

    def _decode(self) -> np.ndarray:
        with _photo(self._file.path) as image:
            if self._is_png:  # by libpng, to all its bits
                from imagecodecs import png_decode

                pixels = png_decode(self._file.path.read_bytes())
            else:
                same = image.mode == self._mode
                pixels = np.asarray(image if same else image.convert(self._mode))
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


@contextmanager
def _photo(path: Path) -> Iterator[Image.Image]:
    """A file opened by Pillow, whose settings of the process do not count meanwhile: an image and
    its comments may be large, since `check_piece` bounds it, and what is torn is never filled up.
    """
    with _pillow, ExitStack() as settings:
        for module, name, value in _PILLOW_SETTINGS:
            settings.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        try:
            with Image.open(path, formats=_PHOTOS) as image:
                yield image
        except IpslibError:
            raise
        except Exception as error:  # every format has errors of its own
            raise unreadable(path, error, f"{_AGAIN}, {', '.join(_PHOTOS)}") from error


def _orientation(image: Image.Image) -> int:
    """As EXIF says; viewers show a file whose EXIF is damaged as it is stored."""
    try:
        return _turn(Image.Image.getexif(image).get(_ORIENTATION))  # PNG's own would decode it
    except Exception:
        return 1


def _turn(stated: object) -> int:
    return stated if stated in range(1, 9) else 1


def tiff_source(path: str | Path, *, level: int = 0, **cut: int | None) -> ImageSource:
    """An image in a TIFF, of several the first, at a level of its pyramid. Of pixels stored as they
    are, the file is mapped; else the tiles or strips under a patch are decoded, by tifffile."""
    file = file_id(path)
    page = opened(_open_page, file, level)
    samples = _samples(file.path, page)
    if page.is_memmappable and sum(page.databytecounts) == page.nbytes:
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        shape = (planes, page.imagelength, page.imagewidth, page.samplesperpixel // planes)
        dtype = page.dtype.newbyteorder(page.parent.byteorder)
        stored = np.memmap(file.path, dtype, "r", page.dataoffsets[0], shape)
        image = stored[0] if planes == 1 else stored[..., 0].transpose(1, 2, 0)
        source = ArraySource(image, file=file, samples=samples, **cut)
    else:
        source = TiffSource(file, level, page, samples, **cut)
    largest = opened(_open_page, file, 0)
    rows, cols = largest.imagelength / page.imagelength, largest.imagewidth / page.imagewidth
    source.downsample = (rows + cols) / 2
    return source


def _samples(path: Path, page: "TiffPage") -> Samples:
    """What the samples of a page mean."""
    kind, extra, bits = page.photometric, page.extrasamples, page.bitspersample
    is_known = (
        page.dtype is not None
        and isinstance(bits, int)
        and page.samplesperpixel == _SAMPLES.get(kind, 0) + len(extra)
    )
    if kind == _YCBCR:  # of which tifffile makes RGB
        is_known &= page.compression in _JPEG and page.planarconfig == 1
    elif kind == _PALETTE:
        is_known &= page.colormap is not None
    else:
        is_known &= _PHOTOMETRIC in page.tags
    if extra:
        is_known &= kind in (_GREY, _INVERTED, _RGB)
        is_known &= len(extra) == 1 or not _ALPHA.keys() & set(extra)
    if not is_known:
        names = ", ".join(getattr(each, "name", str(each)) for each in (kind, *extra))
        raise IpslibError(
            f"{path}: wanted grey, colours, a palette or CMYK, with at most one transparency, got "
            f"{page.samplesperpixel} x {bits} bits of {names}; save it anew as grey or RGB."
        )
    return Samples(
        1.0 if page.dtype.kind == "f" else 2**bits - 1,
        inverted=kind == _INVERTED,
        palette=_colours(page.colormap) if kind == _PALETTE else None,
        inks=kind == _INKS,
        alpha=_ALPHA.get(extra[0], "") if extra else "",
        orientation=_turn(page.tags.valueof(_ORIENTATION)),
    )


def _colours(stored: np.ndarray) -> np.ndarray:
    """A colour map (3, n) as (n, 3) in 0..1; old writers stored bytes where 16 bits are meant."""
    return (stored.T >> 8 if stored.max() > 255 else stored.T).astype(np.float32) / 255


class TiffSource(ImageSource):
    """An image in the tiles or strips of a TIFF, of which a bounded cache keeps the last ones."""

    def __init__(
        self, file: FileId, level: int, page: "TiffPage", samples: Samples, **cut: int | None
    ):
        shape = page.imagelength, page.imagewidth, page.samplesperpixel
        super().__init__(str(file.path), shape, page.dtype, samples, **cut)
        self._file, self._level = file, level
        if page.is_tiled:
            self._piece_shape = page.tilelength, page.tilewidth
        else:
            self._piece_shape = min(page.rowsperstrip, shape[0]), shape[1]
        check_piece(self.name, prod(self._piece_shape) * shape[2] * page.dtype.itemsize, _TILED)

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        length, width = self._piece_shape
        for row in range(rows.start // length, -(-rows.stop // length)):
            for col in range(cols.start // width, -(-cols.stop // width)):
                key = (self._file, self._level, row, col)
                piece = PIECES.get(key, partial(self._decode, row, col))
                top, left = row * length - rows.start, col * width - cols.start
                inside = piece[max(-top, 0) : len(into) - top, max(-left, 0) : into.shape[1] - left]
                top, left = max(top, 0), max(left, 0)
                into[top : top + len(inside), left : left + inside.shape[1]] = inside

    def _decode(self, row: int, col: int) -> np.ndarray:
        """Decode a tile or strip, (length, width, samples)."""
        page = opened(_open_page, self._file, self._level)
        n_planes = page.samplesperpixel if page.planarconfig == 2 else 1
        n_cols, n_pieces = -(-page.imagewidth // self._piece_shape[1]), prod(page.chunked)
        tables, planes = {}, []
        if page.compression in _JPEG:
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        for index in range(row * n_cols + col, n_pieces, n_pieces // n_planes):
            place = [page.dataoffsets[index]], [page.databytecounts[index]]
            try:
                [(data, _)] = page.parent.filehandle.read_segments(*place)
                piece, _, shape = page.decode(data, index, **tables)
            except Exception as error:  # every codec has errors of its own
                lost = f"tile or strip {index} is lost; {_AGAIN}"
                raise unreadable(self.name, error, lost) from error
            is_stored = piece is not None
            planes.append(piece[0] if is_stored else np.full(shape[1:], page.nodata, page.dtype))
        return planes[0] if n_planes == 1 else np.concatenate(planes, axis=2)


def _open_page(path: Path, level: int) -> "TiffPage":
    """The page of a pyramid level, of which the file holds all that it lists."""
    import tifffile

    try:
        tiff = tifffile.TiffFile(path)
        tiff.filehandle.lock = True
        whole = [s for s in tiff.series if not s.keyframe.subfiletype & _NO_IMAGE]
        levels = list((whole or tiff.series)[0].levels)
        page = levels[level].pages[0].aspage() if 0 <= level < len(levels) else None
        n_pieces, size = 0 if page is None else prod(page.chunked), path.stat().st_size
        places = zip(page.dataoffsets, page.databytecounts, strict=False) if n_pieces else ()
        there = [not n or start + n <= size for start, n in places][:n_pieces]
        if sum(there) < n_pieces:
            raise ValueError(f"{n_pieces - sum(there)} of {n_pieces} tiles or strips are torn off")
    except Exception as error:  # damage can show anywhere in the parser
        raise unreadable(path, error, _AGAIN) from error
    if page is None or levels[level].size != page.size or page.imagedepth > 1:
        got = ", ".join(f"{each.shape} ({each.axes})" for each in levels)
        raise IpslibError(
            f"{path}: wanted level {level} of one image, got levels from 0 of {got}; choose one of "
            "these, or save each image of a stack to a file of its own."
        )
    return page
