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
import torch
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from ipslib.datasets.images.files import PIECES, FileId, check_piece, file_id, opened, unreadable
from ipslib.datasets.images.image import ArraySource, ImageSource, Samples
from ipslib.errors import IpslibError

if TYPE_CHECKING:
    from tifffile import TiffPage

_AGAIN = "copy it from its source again"
_TILED = "save it anew as a tiled TIFF"
_TILED_OR_AGAIN = f"{_AGAIN}, or {_TILED}"

_PHOTOS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # that Pillow may open
_ORIENTATION, _PHOTOMETRIC = 274, 262  # tags; EXIF has the first too
_GREY_PNG, _ALPHA_PNG = (0, 4), (4, 6)  # colour types
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
    cache had to give it up.

    Args:
        path: the file.
        patch_size: P in pixels.
        patch_stride: in pixels; P if None.

    Raises:
        IpslibError: when the file is missing, damaged, an animation, or too large to be decoded
            whole.
    """

    def __init__(self, path: str | Path, *, patch_size: int, patch_stride: int | None = None):
        self._file = file_id(path)
        name = str(self._file.path)
        with _photo(self._file.path) as image:
            if getattr(image, "is_animated", False) and image.format != "MPO":  # of a camera
                raise IpslibError(
                    f"{name}: wanted one image, got an animation of {image.n_frames}; save the "
                    "one that counts to a file of its own."
                )
            (width, height), orientation = image.size, _orientation(image)
            grey, alpha = image.mode in ("1", "L", "LA"), image.has_transparency_data
            self._mode, dtype = ("L" if grey else "RGB") + "A" * alpha, np.uint8
            if image.format == "PNG":  # decoded by libpng, to all its bits
                with self._file.path.open("rb") as file:
                    bits, kind = file.read(26)[24:]
                grey, alpha = kind in _GREY_PNG, alpha or kind in _ALPHA_PNG
                self._mode, dtype = None, np.uint16 if bits == 16 else np.uint8
        shape = height, width, (1 if grey else 3) + alpha
        samples = Samples(np.iinfo(dtype).max, alpha="straight" * alpha, orientation=orientation)
        cut = {"patch_size": patch_size, "patch_stride": patch_stride}
        super().__init__(name, shape, dtype, samples=samples, **cut)
        check_piece(name, prod(shape) * np.dtype(dtype).itemsize, _TILED)

    def _copy(self, rows: slice, cols: slice, into: np.ndarray) -> None:
        into[...] = PIECES.get(self._file, self._decode)[rows, cols]

    def _decode(self) -> np.ndarray:
        if self._mode is None:
            from imagecodecs import png_decode

            try:
                pixels = png_decode(self._file.path.read_bytes())
            except Exception as error:
                raise unreadable(self.name, error, _AGAIN) from error
        else:
            with _photo(self._file.path) as image:
                is_so = image.mode == self._mode
                pixels = np.asarray(image if is_so else image.convert(self._mode))
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
        except UnidentifiedImageError as error:
            raise IpslibError(
                f"{path}: wanted an image ({', '.join(_PHOTOS)} or TIFF), got none that is known; "
                f"save it as one of them, or {_AGAIN}."
            ) from error
        except Exception as error:  # every format has errors of its own
            raise unreadable(path, error, _AGAIN) from error


def _orientation(image: Image.Image) -> int:
    """As EXIF says; viewers show a file whose EXIF is damaged as it is stored."""
    try:
        return _turn(Image.Image.getexif(image).get(_ORIENTATION))  # PNG's own would decode it
    except Exception:
        return 1


def _turn(stated: object) -> int:
    return stated if stated in range(1, 9) else 1


def tiff_source(
    path: str | Path, *, patch_size: int, patch_stride: int | None = None, level: int = 0
) -> ImageSource:
    """An image in a TIFF. Of pixels stored as they are, the file is mapped; else the tiles or
    strips under a patch are decoded, by tifffile.

    Args:
        path: the file; of several images in it, the first one.
        patch_size: P in pixels of the level.
        patch_stride: in pixels; P if None.
        level: of the pyramid, 0 for the largest.

    Raises:
        IpslibError: when the file is missing, damaged, holds no single image of this level, or
            must be decoded in too large pieces, or it is not known what its samples mean.
    """
    file = file_id(path)
    page = opened(_open_page, file, level)
    _check_whole(file, page)
    cut = {"patch_size": patch_size, "patch_stride": patch_stride}
    cut["samples"] = _samples(file.path, page)
    source = _mapped_tiff(file, page, cut) or TiffSource(file, level, page, **cut)
    if level:
        largest = opened(_open_page, file, 0)
        rows, cols = largest.imagelength / page.imagelength, largest.imagewidth / page.imagewidth
        source.downsample = (rows + cols) / 2
    return source


def _mapped_tiff(file: FileId, page: "TiffPage", cut: dict) -> ArraySource | None:
    """An image whose pixels are stored as they are; None where they have to be decoded."""
    if not page.is_memmappable or sum(page.databytecounts) != page.nbytes:
        return None
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    shape = (planes, page.imagelength, page.imagewidth, page.samplesperpixel // planes)
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    stored = np.memmap(file.path, dtype, "r", page.dataoffsets[0], shape)
    image = stored[0] if planes == 1 else stored[..., 0].transpose(1, 2, 0)
    return ArraySource(image, name=str(file.path), **cut)


def _samples(path: Path, page: "TiffPage") -> Samples:
    """What the samples of a page mean."""
    kind, extra, bits = page.photometric, page.extrasamples, page.bitspersample
    known = page.dtype is not None and isinstance(bits, int)
    known = known and page.samplesperpixel == _SAMPLES.get(kind, 0) + len(extra)
    if kind not in (_GREY, _INVERTED, _RGB):
        known = known and not extra
    elif _ALPHA.keys() & set(extra):
        known = known and len(extra) == 1
    if kind == _YCBCR:  # of which tifffile makes RGB
        known = known and page.compression in _JPEG and page.planarconfig == 1
    elif kind == _PALETTE:
        known = known and page.colormap is not None
    elif _PHOTOMETRIC not in page.tags:
        known = False
    if not known:
        names = [getattr(each, "name", each) for each in (kind, page.compression, *extra)]
        raise IpslibError(
            f"{path}: wanted grey values, colours, a palette or CMYK, and at most one channel of "
            f"transparency, got {page.samplesperpixel} samples of {bits} bits that are said to be "
            f"{', '.join(map(str, names))}; save it anew as grey or RGB."
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
    """An image in the tiles or strips of a TIFF, of which a bounded cache keeps the last ones.

    Made by `tiff_source`, which opens the `page` of a pyramid `level`.
    """

    def __init__(self, file: FileId, level: int, page: "TiffPage", **cut: int | None):
        shape = page.imagelength, page.imagewidth, page.samplesperpixel
        super().__init__(str(file.path), shape, page.dtype, **cut)
        self._file, self._level = file, level
        if page.is_tiled:
            self._piece_shape = page.tilelength, page.tilewidth
        else:
            self._piece_shape = min(page.rowsperstrip, shape[0]), shape[1]
        self._n_planes = shape[2] if page.planarconfig == 2 else 1
        self._pieces = tuple(-(-n // m) for n, m in zip(shape, self._piece_shape, strict=False))
        n_bytes = self._piece_shape[0] * self._piece_shape[1] * shape[2] * page.dtype.itemsize
        check_piece(self.name, n_bytes, _TILED)

    @property
    def blank(self) -> Tensor | None:
        """(N,) bool, True where no tile under a patch is stored; None where all are."""
        page = opened(_open_page, self._file, self._level)
        n_rows, n_cols = self._pieces
        counts = np.array(page.databytecounts[: self._n_planes * n_rows * n_cols])
        stored = counts.reshape(self._n_planes, n_rows, n_cols).any(axis=0)
        turned = self._samples.orientation != 1
        if stored.all() or page.nodata or turned or not self._zero_is_black:
            return None
        total = np.pad(stored.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        size, (length, width) = self.grid.patch_size, self._piece_shape
        top, left = self.grid.corners(np.arange(self.n_patches)).T
        bottom = np.minimum(top + size, self.grid.canvas[0]) - 1
        right = np.minimum(left + size, self.grid.canvas[1]) - 1
        r0, r1, c0, c1 = top // length, bottom // length + 1, left // width, right // width + 1
        n_stored = total[r1, c1] - total[r0, c1] - total[r1, c0] + total[r0, c0]
        return torch.from_numpy(n_stored == 0)

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
        """Decode a tile or strip, (length, width, C)."""
        page = opened(_open_page, self._file, self._level)
        n_rows, n_cols = self._pieces
        planes = [
            self._decode_plane(page, (plane * n_rows + row) * n_cols + col)
            for plane in range(self._n_planes)
        ]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _decode_plane(self, page: "TiffPage", index: int) -> np.ndarray:
        handle, n_bytes = page.parent.filehandle, page.databytecounts[index]
        tables = {}
        if page.compression in _JPEG:
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        try:
            data, decode = None, page.decode  # which reads the file when it is first looked up
            if n_bytes:
                with handle.lock:
                    handle.seek(page.dataoffsets[index])
                    data = handle.read(n_bytes)
            piece, _, shape = decode(data, index, **tables)
        except Exception as error:  # every codec has errors of its own
            lost = f"tile or strip {index} is lost; {_TILED_OR_AGAIN}"
            raise unreadable(self.name, error, lost) from error
        return np.full(shape[1:], page.nodata, page.dtype) if piece is None else piece[0]


def _check_whole(file: FileId, page: "TiffPage") -> None:
    """Find a torn file before any work starts."""
    n_pieces = prod(page.chunked)
    listed = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:n_pieces]
    if len(listed) < n_pieces or any(start + n > file.size for start, n in listed if n):
        raise IpslibError(
            f"{file.path}: wanted {n_pieces} tiles or strips, got a torn file that holds fewer; "
            f"{_TILED_OR_AGAIN}."
        )


def _open_page(path: Path, level: int) -> "TiffPage":
    """The page of a pyramid level."""
    import tifffile

    try:
        tiff = tifffile.TiffFile(path)
        tiff.filehandle.lock = True
        whole = [s for s in tiff.series if not s.keyframe.subfiletype & _NO_IMAGE]
        levels = list((whole or tiff.series)[0].levels)
        page = levels[level].pages[0].aspage() if 0 <= level < len(levels) else None
    except Exception as error:  # damage can show anywhere in the parser
        raise unreadable(path, error, _TILED_OR_AGAIN) from error
    if page is None:
        raise IpslibError(
            f"{path}: wanted level {level} of the pyramid, got levels 0 to {len(levels) - 1}; "
            "choose one of these."
        )
    if levels[level].size != page.size or page.imagedepth > 1:
        raise IpslibError(
            f"{path}: wanted one image, got a stack of {levels[level].shape} "
            f"(axes {levels[level].axes}); save each image to a file of its own."
        )
    return page
