"""Decoding of pictures from untrusted files: few formats, limits of size and time, RGB output.

`as_png` is the way back.

No other module opens encoded pictures. Decoding starts no program, and its time is bounded: the
pixels and bytes bound the time of Pillow's C code, and `_check` refuses the exceptions. Pillow's
Python code reads from the file in every turn of a loop, and `_File` limits the number of reads.
"""

import io

import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from mmunlearner_jax.errors import InputError, refusing

# Formats that start a program (EPS) are left out, and so are formats whose decoding time is not
# bounded by the size: a JPEG 2000 of 1 MB can take a minute.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# A square of this side has fewer pixels than Pillow's limit for decompression bombs (89 million).
MAX_SIDE = 8192
MAX_BYTES = 8 * MAX_SIDE**2  # the largest picture with four channels of 16 bits, uncompressed

_HEADER_READS, _HEADER_BYTES = 2048, 8 * 2**20  # for the part of the file before the pixels
_READS = 2**21  # for the pixels and the rest of the file
_SCANS = 100  # scans of a JPEG of the largest size; usual are 1 to 12, and those of a thumbnail
_PROFILES = 100  # colour profiles of a PNG; the standard allows one
_TEXT = 2**20  # pixels of a PPM that is written in decimals
_AVIF = 2**25  # pixels of an AVIF, the slowest format to decode
_STRIPS = 2**19  # strips of a TIFF; the largest picture has 2**18 tiles of the smallest legal size
_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd")
_COMPRESSIONS += ("tiff_ccitt", "group3", "group4")
_MEND = "store it again as PNG or JPEG"


def decoded(encoded: bytes) -> Image.Image:
    """Decodes a picture to the RGB image that a viewer shows.

    The picture is rotated by its EXIF orientation, as `transformers.image_utils.load_image` does.
    Values of more than 8 bits are scaled to 8. Transparent pixels are blended with white.

    Args:
        encoded: Content of an image file.

    Returns:
        An image of mode RGB; of an animation, the first frame.

    Raises:
        InputError: The picture cannot be decoded, or its value for white is unknown. The message
            continues a line that begins with the picture's name.
    """
    picture = opened(encoded)
    with refusing("cannot be decoded", _MEND):
        ImageOps.exif_transpose(picture, in_place=True)
        return seen(picture)


def seen(picture: Image.Image) -> Image.Image:
    """Returns the RGB image that a viewer shows of an opened picture, but not rotated.

    Raises:
        InputError: As `decoded`.
    """
    if picture.mode[0] in "IF":
        return _grey(picture).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def as_png(picture: Image.Image, level: int = 6) -> bytes:
    """Returns a picture as PNG.

    Args:
        picture: The picture.
        level: Compression of zlib, 0 to 9; 1 is fast, for pictures that are soon read again.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def opened(encoded: bytes) -> Image.Image:
    """Decodes a picture as it is stored: in its own mode, not rotated.

    Args:
        encoded: Content of an image file.

    Raises:
        InputError: The format is not supported, or the file is damaged, too large or too slow to
            decode. The message continues a line that begins with the picture's name.
    """
    if len(encoded) > MAX_BYTES:
        raise InputError(f"has {len(encoded):,} bytes, above {MAX_BYTES:,}; {_MEND}")
    file = _File(encoded)
    with refusing("cannot be decoded", _MEND):
        if encoded[:2] in (b"II", b"MM"):
            _check_tiff(_File(encoded), len(encoded))
        try:
            picture = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError:
            formats = ", ".join(FORMATS)
            raise InputError(f"cannot be decoded: it is none of {formats}; {_MEND}") from None
        except Image.DecompressionBombError:
            raise InputError(
                f"has more pixels than {MAX_SIDE} x {MAX_SIDE}; make it smaller"
            ) from None
        _check(picture, encoded)
        file.reads, file.room = _READS, 2 * len(encoded) + _HEADER_BYTES
        picture.load()
    return picture


class _File(io.BytesIO):
    """A file in memory with a limited number of reads (`reads`) and of bytes read (`room`)."""

    reads, room = _HEADER_READS, _HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads -= 1
        self.room -= max(size or 0, 0)
        if min(self.reads, self.room) < 0:
            raise InputError(f"has too many parts, or too much data besides its pixels; {_MEND}")
        return super().read(size)


def _check(picture: ImageFile.ImageFile, encoded: bytes) -> None:
    """Refuses pictures that take too much time or memory, before any pixel is decoded."""
    width, height = picture.size
    pixels = width * height
    if not (0 < min(picture.size) and max(picture.size) <= MAX_SIDE):
        problem = f"has {width} x {height} pixels; each side must have 1 to {MAX_SIDE}"
        raise InputError(f"{problem}: make it smaller")
    if picture.format in ("JPEG", "MPO"):
        # Even an empty scan visits all pixels; 2**16 more stand for the cost of starting it.
        scans = encoded.count(b"\xff\xda")
        if scans * (pixels + 2**16) > _SCANS * MAX_SIDE**2:
            raise InputError(f"is a JPEG with too many scans ({scans:,}); {_MEND}")
    elif isinstance(picture, PngImagePlugin.PngImageFile):
        if encoded.count(b"iCCP") > _PROFILES:
            raise InputError(f"has more than {_PROFILES} colour profiles; {_MEND}")
        _scale_key(picture)
    elif picture.tile and picture.tile[0].codec_name == "ppm_plain" and pixels > _TEXT:
        raise InputError(f"stores {pixels:,} pixels as text, more than {_TEXT:,}; {_MEND}")
    elif picture.format == "AVIF" and pixels > _AVIF:
        raise InputError(f"is an AVIF of {pixels:,} pixels, more than {_AVIF:,}; {_MEND}")


def _scale_key(picture: PngImagePlugin.PngImageFile) -> None:
    """Scales a PNG's transparent grey value to 8 bits, as Pillow scales the pixels only."""
    key, stored = picture.info.get("transparency"), picture.tile[0].args
    if key is not None and stored in ("L;2", "L;4"):
        picture.info["transparency"] = key * (85 if stored == "L;2" else 17)
    elif key is not None and stored == "RGB;16B":
        raise InputError(
            f"has one transparent colour of 16 bits, of which Pillow reads only 8; {_MEND}"
        )


def _check_tiff(file: _File, size: int) -> None:
    """Checks a TIFF's first directory before Pillow makes an object of each strip."""
    head = file.read(8)
    if head[2:3] == b"\x2b":  # offsets of 64 bits
        head += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    compression = TiffImagePlugin.COMPRESSION_INFO.get(tags.get(TiffImagePlugin.COMPRESSION, 1))
    if compression not in _COMPRESSIONS:
        raise InputError(f"is a TIFF with the unsupported compression {compression}; {_MEND}")
    sides = [tags.get(name, 0) for name in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
    strips, lengths = (
        max((tags.get(name, ()) for name in names), key=len)
        for names in (
            (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS),
            (TiffImagePlugin.STRIPBYTECOUNTS, TiffImagePlugin.TILEBYTECOUNTS),
        )
    )
    if max(sides) > MAX_SIDE or len(strips) > _STRIPS or sum(lengths) > 2 * size:
        raise InputError(
            f"is a TIFF whose strips or tiles are too large, too many or overlapping; {_MEND}"
        )


def _grey(picture: Image.Image) -> Image.Image:
    """Scales the grey values of a picture (12, 16 or 32 bits, or floats) to 8 bits."""
    values = np.asarray(picture)
    tags = picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else {}
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    signed = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 2
    if picture.mode == "I" and bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow has no mode for unsigned 32 bits
    least, most = values.min(), values.max()
    if picture.mode == "F":
        clear, shades = 0 <= least and most <= 1, values * 255
    elif bits == 32:
        # The file does not tell whether fewer bits (8, 12, 16 or 24) are stored in 32.
        clear, shades = least >= 0 and (most == 0 or most >= 2**24), values >> (24 - signed)
    else:
        clear, shades = least >= 0, values * (255 / (2 ** (bits - signed) - 1))
    if not clear:
        problem = f"has values from {least:g} to {most:g}, and the file does not define white"
        raise InputError(f"{problem}; store it with 8 or 16 bits")
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        shades = 255 - shades
    shades = np.rint(shades).astype(np.uint8)
    if (key := picture.info.get("transparency")) is not None:
        shades[values == key] = 255
    return Image.fromarray(shades)
