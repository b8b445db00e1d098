"""The one place that opens encoded pictures: few formats, limits of size and time, RGB in the end.

No program is started, whatever a stranger's file holds, and the time is bounded. What Pillow does
in C takes as long as pixels and bytes allow, or is refused by `_check`. What it does in Python
reads the file in every turn of a loop, and `_File` limits how often.
"""

import io

import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from mmunlearner_jax.errors import InputError, refusing

# Left out are those that start a program (EPS), and those whose time the size does not bound: a
# JPEG 2000 of 1 MB can take a minute.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
# Below Pillow's own warning of decompression bombs (89 million pixels), however square.
MAX_SIDE = 8192
MAX_BYTES = 8 * MAX_SIDE**2  # four channels of 16 bits that no compression makes smaller

_HEADER_READS, _HEADER_BYTES = 2048, 8 * 2**20  # for what stands before the pixels
_READS = 2**21  # for the pixels and what stands behind them
_SCANS = 100  # of a JPEG of the largest size; usual are one to twelve, and a thumbnail's
_PROFILES = 100  # colour profiles of a PNG; one is allowed
_TEXT = 2**20  # pixels of a PPM written in decimals
_AVIF = 2**25  # pixels of an AVIF, the slowest format to decode
_STRIPS = 2**19  # of a TIFF; the smallest tiles that are allowed make 2**18 of the largest picture
_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd")
_COMPRESSIONS += ("tiff_ccitt", "group3", "group4")
_MEND = "store it anew, as PNG or JPEG"


def decoded(encoded: bytes) -> Image.Image:
    """Decodes a picture to what a viewer shows.

    It is turned as its EXIF says, as by `transformers.image_utils.load_image`. Values of more than
    8 bits are scaled to 8. What is transparent lies on white.

    Args:
        encoded: the content of a file.

    Returns:
        Mode RGB; the first frame of several.

    Raises:
        InputError: it is not decoded, or what is white in it is ambiguous; the message is to follow
            the picture's name.
    """
    picture = opened(encoded)
    with refusing("cannot be decoded", _MEND):
        ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode[0] in "IF":
            return _grey(picture).convert("RGB")
        if not picture.has_transparency_data:
            return picture.convert("RGB")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def opened(encoded: bytes) -> Image.Image:
    """Decodes a picture as it is stored: in its own mode, not turned.

    Args:
        encoded: the content of a file.

    Raises:
        InputError: it is of no known format, damaged, too large, or would take too long; the
            message is to follow the picture's name.
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
            raise InputError(f"cannot be decoded: is no {', '.join(FORMATS)}; {_MEND}") from None
        except Image.DecompressionBombError:
            raise InputError(
                f"has more pixels than {MAX_SIDE} x {MAX_SIDE}; make it smaller"
            ) from None
        _check(picture, encoded)
        file.reads, file.room = _READS, 2 * len(encoded) + _HEADER_BYTES
        picture.load()
    return picture


class _File(io.BytesIO):
    """Bytes that can be read so many times, and so many of them, before it is enough."""

    reads, room = _HEADER_READS, _HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads -= 1
        self.room -= max(size or 0, 0)
        if min(self.reads, self.room) < 0:
            raise InputError(f"has too many parts, or too much beside its pixels; {_MEND}")
        return super().read(size)


def _check(picture: ImageFile.ImageFile, encoded: bytes) -> None:
    """Refuses what would take too long, or too much memory, before a pixel is decoded."""
    width, height = picture.size
    pixels = width * height
    if not (0 < min(picture.size) and max(picture.size) <= MAX_SIDE):
        said = f"is {width} x {height} pixels, not within 1 ... {MAX_SIDE} a side"
        raise InputError(f"{said}; make it smaller")
    if picture.format in ("JPEG", "MPO"):
        # An empty scan still goes over all pixels; starting one is worth some more.
        scans = encoded.count(b"\xff\xda")
        if scans * (pixels + 2**16) > _SCANS * MAX_SIDE**2:
            raise InputError(f"is a JPEG of {scans:,} scans; {_MEND}")
    elif isinstance(picture, PngImagePlugin.PngImageFile):
        if encoded.count(b"iCCP") > _PROFILES:
            raise InputError(f"has more than {_PROFILES} colour profiles; {_MEND}")
        _scale_key(picture)
    elif picture.tile and picture.tile[0].codec_name == "ppm_plain" and pixels > _TEXT:
        raise InputError(f"writes {pixels:,} pixels as text, above {_TEXT:,}; {_MEND}")
    elif picture.format == "AVIF" and pixels > _AVIF:
        raise InputError(f"is an AVIF of {pixels:,} pixels, above {_AVIF:,}; {_MEND}")


def _scale_key(picture: PngImagePlugin.PngImageFile) -> None:
    """Gives the transparent value in 8 bits, as the pixels are; Pillow leaves it as in the file."""
    key, stored = picture.info.get("transparency"), picture.tile[0].args
    if key is not None and stored in ("L;2", "L;4"):
        picture.info["transparency"] = key * (85 if stored == "L;2" else 17)
    elif key is not None and stored == "RGB;16B":
        raise InputError(f"has one transparent colour of 16 bits, of which 8 are read; {_MEND}")


def _check_tiff(file: _File, size: int) -> None:
    """Looks at a TIFF's first directory, before Pillow makes objects of all its strips."""
    head = file.read(8)
    if head[2:3] == b"\x2b":  # offsets of 64 bits
        head += file.read(8)
    tags = TiffImagePlugin.ImageFileDirectory_v2(head)
    file.seek(tags.next)
    tags.load(file)
    compression = TiffImagePlugin.COMPRESSION_INFO.get(tags.get(TiffImagePlugin.COMPRESSION, 1))
    if compression not in _COMPRESSIONS:
        raise InputError(f"is a TIFF of compression {compression}; {_MEND}")
    sides = [tags.get(name, 0) for name in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
    strips, lengths = (
        max((tags.get(name, ()) for name in names), key=len)
        for names in (
            (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS),
            (TiffImagePlugin.STRIPBYTECOUNTS, TiffImagePlugin.TILEBYTECOUNTS),
        )
    )
    if max(sides) > MAX_SIDE or len(strips) > _STRIPS or sum(lengths) > 2 * size:
        raise InputError(f"is a TIFF of parts too large, too many or written twice; {_MEND}")


def _grey(picture: Image.Image) -> Image.Image:
    """Scales grey values of 12, 16 or 32 bits, or floats, to 8 bits."""
    values = np.asarray(picture)
    tags = picture.tag_v2 if isinstance(picture, TiffImagePlugin.TiffImageFile) else {}
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    signed = tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0] == 2
    if picture.mode == "I" and bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow has no mode for these
    least, most = values.min(), values.max()
    if picture.mode == "F":
        clear, shades = 0 <= least and most <= 1, values * 255
    elif bits == 32:
        # Whoever stores 8, 12, 16 or 24 bits in 32 does not say so.
        clear, shades = least >= 0 and (most == 0 or most >= 2**24), values >> (24 - signed)
    else:
        clear, shades = least >= 0, values * (255 / (2 ** (bits - signed) - 1))
    if not clear:
        said = f"has values of {least:g} ... {most:g}, and which of them is white is not said"
        raise InputError(f"{said}; store it with 8 or 16 bits")
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        shades = 255 - shades
    shades = np.rint(shades).astype(np.uint8)
    if (key := picture.info.get("transparency")) is not None:
        shades[values == key] = 255
    return Image.fromarray(shades)
