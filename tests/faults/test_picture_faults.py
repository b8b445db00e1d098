"""Pictures: known formats alone are opened, as a viewer shows them, within size and time."""

import functools
import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image, ImageFile
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import load_image

import mmunlearner_jax
from mmunlearner_jax.data import decode
from mmunlearner_jax.data.decode import MAX_SIDE, decoded, opened
from mmunlearner_jax.errors import InputError
from mmunlearner_jax.models.qwen2_vl.inputs import AnySize
from mmunlearner_jax.processing.pictures import OneSize
from mmunlearner_jax.reporting.cases import picture_uri

RAMP = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(48, 0)  # dark left, light right
GREY = Image.fromarray(RAMP)
COLOUR = Image.fromarray(np.stack([RAMP, RAMP[:, ::-1], 255 - RAMP // 2], -1))


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(depth: int, colour: int, lines: bytes, width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + end


def tiff(tags: dict[int, tuple[str, list[int]]], content: bytes) -> bytes:
    """A little-endian TIFF: `content` from byte 8 on, then its one directory."""
    start = 8 + len(content)
    there, beyond = b"", start + 2 + 12 * len(tags) + 4
    values = b""
    for tag, (kind, numbers) in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}{kind}", *numbers)
        code = {"B": 1, "H": 3, "I": 4}[kind]
        if len(packed) > 4:
            place, values = struct.pack("<I", beyond + len(values)), values + packed
        else:
            place = packed.ljust(4, b"\0")
        there += struct.pack("<HHI", tag, code, len(numbers)) + place
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + content
        + struct.pack("<H", len(tags))
        + there
        + bytes(4)
        + values
    )


def deep_tiff(bits: int, white: int, kind: int, values: np.ndarray) -> bytes:
    """RAMP's size; `white` is 0 where white is zero, `kind` 2 where values are signed."""
    return tiff(
        {
            256: ("I", [64]),
            257: ("I", [48]),
            258: ("H", [bits]),
            262: ("H", [white]),
            273: ("I", [8]),
            279: ("I", [values.nbytes]),
            339: ("H", [kind]),
        },
        values.tobytes(),
    )


def grey_tiff(content: bytes, **tags) -> bytes:
    """8 x 8 pixels of 8 bits, one strip; `t278=("I", [1])` is tag 278."""
    common = {
        256: ("I", [8]),
        257: ("I", [8]),
        258: ("H", [8]),
        259: ("H", [1]),
        262: ("H", [1]),
        273: ("I", [8]),
        277: ("H", [1]),
        278: ("I", [8]),
        279: ("I", [64]),
    }
    common |= {int(tag[1:]): value for tag, value in tags.items()}
    return tiff({tag: value for tag, value in common.items() if value}, content)


# --- What runs a program


def test_pictures_are_opened_in_one_place():
    folder = Path(mmunlearner_jax.__file__).parent
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if re.search(r"Image\.open\(|ImageFile\.Parser|load_image\(", path.read_text())
    }
    assert found == {"data/decode.py"}


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 9 9
%%EndComments
(PLACE) (w) file closefile showpage
%%EOF
"""
FOREIGN = {
    "EPS": EPS,
    "EPS in DOS": struct.pack("<4sIIIIIIH", b"\xc5\xd0\xd3\xc6", 32, len(EPS), 0, 0, 0, 0, 65535)
    + bytes(2)
    + EPS,
    "PostScript": EPS.replace(b" EPSF-3.0", b""),
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 9, 9, 72) + bytes(6) + bytes(40),
    "PDF": b"%PDF-1.4\n1 0 obj<<>>endobj\n%%EOF",
    "FITS": b"SIMPLE  =                    T" + bytes(2850),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    "HTML": b"<!doctype html><html>404</html>",
    "ICO": encoded(COLOUR, "ico"),
    "TGA": encoded(COLOUR, "tga"),
    "PCX": encoded(COLOUR, "pcx"),
    "JPEG 2000": encoded(COLOUR, "jpeg2000"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("opens", [opened, decoded, picture_uri])
def test_other_formats_start_no_program(name, opens, tmp_path, monkeypatch):
    for program in ("gs", "gswin64c", "convert", "wmf2eps"):
        path = tmp_path / program
        path.write_text(f"#!/bin/sh\necho ran > {tmp_path}/ran\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(
        InputError, match="^cannot be decoded: it is none of JPEG, PNG, .*; store it"
    ):
        opens(FOREIGN[name].replace(b"PLACE", bytes(tmp_path / "written")))
    assert not {"ran", "written"} & {path.name for path in tmp_path.iterdir()}


# --- What a viewer shows


@pytest.mark.parametrize(
    ("kind", "picture", "options"),
    [
        ("png", GREY, {}),
        ("png", COLOUR, {}),
        ("png", GREY.convert("1"), {}),
        ("png", COLOUR.quantize(16), {}),
        ("jpeg", GREY, {}),
        ("jpeg", COLOUR, {"progressive": True}),
        ("jpeg", COLOUR.convert("CMYK"), {}),
        ("gif", COLOUR.quantize(16), {"save_all": True, "append_images": [GREY]}),
        ("webp", COLOUR, {"lossless": True, "save_all": True, "append_images": [GREY]}),
        ("bmp", COLOUR, {}),
        ("ppm", GREY, {}),
        ("tiff", COLOUR, {"compression": "tiff_lzw"}),
        ("tiff", GREY, {"compression": "packbits"}),
        ("avif", COLOUR, {}),
    ],
    ids=lambda it: (
        it.mode if isinstance(it, Image.Image) else "+".join([it] if isinstance(it, str) else it)
    ),
)
def test_others_are_the_same_as_ever(kind, picture, options):
    stored = encoded(picture, kind, **options)
    with Image.open(io.BytesIO(stored)) as plain:
        expected = plain.convert("RGB")
        mode = plain.mode
    result = decoded(stored)
    assert result.mode == "RGB" and result.tobytes() == expected.tobytes()
    assert opened(stored).mode == mode


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 10))
def test_orientation_is_that_of_transformers(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / "picture"
    path.write_bytes(encoded(COLOUR, kind, exif=exif))
    assert decoded(path.read_bytes()).tobytes() == load_image(str(path)).tobytes()


def test_orientation_in_xmp_is_that_of_transformers(tmp_path):
    said = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    path = tmp_path / "picture"
    path.write_bytes(encoded(COLOUR, "jpeg", xmp=said))
    assert decoded(path.read_bytes()).size == load_image(str(path)).size == (48, 64)


WIDE = RAMP.astype(np.uint16) * 257
DEEP = {
    "PNG of 16 bits": encoded(Image.fromarray(WIDE), "png"),
    "TIFF of 16 bits": encoded(Image.fromarray(WIDE), "tiff"),
    "TIFF of 16 bits, packed": encoded(Image.fromarray(WIDE), "tiff", compression="tiff_lzw"),
    "TIFF of 16 bits, big-endian": encoded(Image.fromarray(WIDE.astype(">u2")), "tiff"),
    "TIFF of 16 bits, signed": deep_tiff(16, 1, 2, np.rint(RAMP * (32767 / 255)).astype("<i2")),
    "TIFF of 16 bits, white is zero": deep_tiff(16, 0, 1, 65535 - WIDE),
    "TIFF of 32 bits": encoded(Image.fromarray(RAMP.astype(np.int32) << 23), "tiff"),
    "TIFF of 32 bits, unsigned": deep_tiff(32, 1, 1, RAMP.astype("<u4") * 0x01010101),
    "TIFF of floats": encoded(Image.fromarray(RAMP.astype(np.float32) / 255), "tiff"),
    "PFM": encoded(Image.fromarray(RAMP.astype(np.float32) / 255), "ppm"),
    "PGM of 16 bits": b"P5 64 48 65535\n" + WIDE.astype(">u2").tobytes(),
    "PGM of 10 bits": b"P5 64 48 1023\n" + np.rint(RAMP / 255 * 1023).astype(">u2").tobytes(),
    "PGM of 4 bits": b"P5 64 48 15\n" + (RAMP // 17).tobytes(),
}


@pytest.mark.parametrize("name", DEEP)
def test_other_depths_are_scaled_to_8_bits(name):
    shades = np.asarray(decoded(DEEP[name]))
    expected = RAMP // 17 * 17 if "4 bits" in name else RAMP
    assert (shades == expected[:, :, None]).all()


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.int32),  # of 8, 16 or 24 bits in 32?
        RAMP.astype(np.int32) * 257,
        RAMP.astype(np.int32) - 9,
        RAMP.astype(np.float32),
        RAMP.astype(np.float32) / 255 - 0.1,
        np.full((4, 4), np.nan, np.float32),
        np.full((4, 4), np.inf, np.float32),
    ],
    ids=lambda values: f"{values.dtype} to {values.max()}",
)
def test_an_unknown_white_is_refused(values):
    with pytest.raises(
        InputError, match="has values from .*, and the file does not define white; "
    ):
        decoded(encoded(Image.fromarray(values), "tiff"))


def transparent() -> dict[str, bytes]:
    alpha = np.zeros(RAMP.shape, np.uint8)
    alpha[12:36] = RAMP[12:36]
    colour, grey = COLOUR.convert("RGBA"), GREY.convert("LA")
    for picture in (colour, grey):
        picture.putalpha(Image.fromarray(alpha))
    palette = COLOUR.quantize(8)
    return {
        "RGBA": encoded(colour, "png"),
        "LA": encoded(grey, "png"),
        "palette, one of it": encoded(palette, "png", transparency=3),
        "palette, all of it": encoded(palette, "png", transparency=bytes(range(0, 256, 32))),
        "one grey": encoded(GREY, "png", transparency=int(RAMP[0, 20])),
        "one colour": encoded(COLOUR, "png", transparency=COLOUR.getpixel((9, 9))),
        "black or white": encoded(GREY.convert("1"), "png", transparency=0),
        "GIF": encoded(palette, "gif", transparency=3),
        "WebP": encoded(colour, "webp", lossless=True),
        "AVIF": encoded(colour, "avif"),
        "TIFF": encoded(colour, "tiff"),
    }


TRANSPARENT = transparent()


@pytest.mark.parametrize("name", TRANSPARENT)
def test_what_is_transparent_lies_on_white_as_in_transformers(name):
    stored = TRANSPARENT[name]
    with Image.open(io.BytesIO(stored)) as picture:
        expected = convert_to_rgb(picture, return_numpy=True)
    result = np.asarray(decoded(stored))
    np.testing.assert_array_equal(result, expected)
    assert (result == 255).all(-1).any()


@pytest.mark.parametrize(
    ("depth", "line", "key", "shades"),
    [
        (16, np.array([0, 257 * 9, 65535], ">u2").tobytes(), 257 * 9, [0, 255, 255]),
        (8, bytes([0, 9, 200]), 9, [0, 255, 200]),
        (4, bytes([0x03, 0xA0]), 3, [0, 255, 170]),  # Pillow looks for 3 among 0, 51 and 170
        (2, bytes([0b00_01_10_00]), 1, [0, 255, 170]),
        (1, bytes([0b010_00000]), 0, [255, 255, 255]),
    ],
)
def test_a_transparent_grey_of_any_depth(depth, line, key, shades):
    stored = png(depth, 0, b"\0" + line, 3, 1, chunk(b"tRNS", struct.pack(">H", key)))
    np.testing.assert_array_equal(np.asarray(decoded(stored))[0, :, 0], shades)


def test_a_transparent_colour_of_16_bits_is_refused():
    stored = png(16, 2, bytes(7), 1, 1, chunk(b"tRNS", bytes(6)))
    with pytest.raises(InputError, match="one transparent colour of 16 bits"):
        decoded(stored)


# --- Limits


@functools.cache
def bombs() -> dict[str, bytes]:
    """Pictures for the limits of `small_limits`; the real ones take seconds to reach."""
    small, large = Image.new("RGB", (8, 8)), Image.new("RGB", (2048, 2048))
    plain = encoded(small, "png")
    before, after = plain.find(b"IDAT") - 4, plain.find(b"IEND") - 4
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20)))
    nothing = chunk(b"teXt", b"")
    jpeg, progressive = encoded(small, "jpeg"), encoded(large, "jpeg", progressive=True)
    scan = progressive[progressive.rfind(b"\xff\xda") : -2]
    exif = b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)
    lines = b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078)
    lines += struct.pack("<IiiHHIIiiII", 40, 8, 8192, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    beyond = bytearray(encoded(small.convert("P"), "gif"))
    place = beyond.find(b"\x2c")
    beyond[place + 5 : place + 9] = struct.pack("<HH", 65535, 65535)
    zipped = zlib.compress(bytes(64))
    return {
        "PNG that unpacks profiles": plain[:after] + profile * 101 + plain[after:],
        "PNG of many parts": plain[:before] + nothing * 2000 + plain[before:],
        "PNG of many parts behind": plain[:after] + nothing * 5000 + plain[after:],
        "JPEG of many scans": progressive[:-2] + scan * 2000 + progressive[-2:],
        "JPEG of much EXIF": jpeg[:2] + exif * 200 + jpeg[2:],
        "JPEG of many parts": jpeg[:2] + b"\xff\xe5\0\2" * 5000 + jpeg[2:],
        "JPEG of padding": jpeg[:2] + b"\xff" * 10**6 + jpeg[2:],
        "PPM as text": b"P3 2048 2048 255\n" + b"1 " * 10**5,
        "PPM read by pixel": b"P6 8192 8192 200\n" + bytes(10**5),
        "PPM of comments": b"P6 " + b"#comment\n" * 10**5 + b"8 8 255\n" + bytes(192),
        "BMP of ends of lines": lines + bytes(10**5),
        "GIF beyond its screen": bytes(beyond),
        "GIF of comments": bytes(beyond[:place]) + b"\x21\xfe" + b"\1a" * 10**5 + b"\0",
        "TIFF of many strips": grey_tiff(bytes(64), t273=("I", [8] * 6000), t278=("I", [1])),
        "TIFF of strips beyond": grey_tiff(bytes(64), t273=("B", [8] * 9_000_000)),
        "TIFF that repeats a strip": grey_tiff(
            zipped + bytes(1000), t259=("H", [8]), t279=("I", [1000] * 8), t278=("I", [1])
        ),
        "TIFF of a large tile": grey_tiff(
            zipped,
            t259=("H", [8]),
            t273=None,
            t278=None,
            t279=None,
            t322=("I", [60000]),
            t323=("I", [60000]),
            t324=("I", [8]),
            t325=("I", [len(zipped)]),
        ),
        "AVIF of many pixels": encoded(Image.new("RGB", (10, 10)), "avif"),
        "TIFF around JPEG": encoded(small, "tiff", compression="jpeg"),
        "too wide": encoded(Image.new("L", (MAX_SIDE + 1, 1)), "png"),
        "too many pixels": png(1, 0, b"", 10**5, 10**5),
        "no pixels": png(1, 0, b"", 0, 5),
    }


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(decode, "_READS", 5000)
    monkeypatch.setattr(decode, "_STRIPS", 5000)
    monkeypatch.setattr(decode, "_AVIF", 99)


@pytest.mark.parametrize("name", bombs())
def test_what_would_take_too_long_is_refused_in_one_line(name, small_limits):
    with pytest.raises(InputError) as error:
        decoded(bombs()[name])
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)
    assert "make it smaller" in str(error.value) or "store it again" in str(error.value)


def test_too_many_bytes_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(decode, "MAX_BYTES", 99)
    with pytest.raises(InputError, match="has 100 bytes, above 99"):
        decoded(bytes(100))


def test_a_directory_of_a_tiff_that_never_ends():
    stored = bytearray(grey_tiff(bytes(64)))
    place = 8 + 64 + 2 + 12 * 9
    stored[place : place + 4] = struct.pack("<I", 72)  # the next directory is this one
    assert decoded(bytes(stored)).size == (8, 8)


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "webp", "bmp", "tiff", "ppm", "avif"])
def test_damaged_pictures_are_right_or_one_line(kind):
    whole = encoded(COLOUR.resize((24, 20)), kind)
    random = np.random.default_rng(0)
    for number in range(60):
        broken = bytearray(whole[: random.integers(len(whole))] if number % 4 == 0 else whole)
        for place in random.integers(len(whole), size=number % 5):
            broken[place % len(broken)] = random.integers(256)
        try:
            assert decoded(bytes(broken)).mode == "RGB"
        except InputError as error:
            assert len(str(error)) < 400 and str(error).isprintable()
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


# --- What models see


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (27, 200), (14, 14), (1, 50), (28, 5600)])
def test_qwen2_vl_sees_small_pictures_as_transformers_does(size):
    cutter = transformers.Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 16)
    picture = COLOUR.resize(size)
    pictures = AnySize(cutter)
    pixels, tokens = pictures.read(picture)
    theirs = cutter(images=[picture], return_tensors="np")
    packed = pictures.pack([[pixels]], tokens)
    count = len(theirs["pixel_values"])
    np.testing.assert_array_equal(packed["pixel_values"][0, :count], theirs["pixel_values"])
    np.testing.assert_array_equal(packed["image_grid_thw"][0], theirs["image_grid_thw"])
    assert count == 4 * tokens


def test_strips_are_refused_where_transformers_does_or_memory_ends():
    cutter = transformers.Qwen2VLImageProcessorPil()
    for size in ((5601, 28), (28, 5601)):
        with pytest.raises(ValueError, match="aspect ratio"):
            cutter(images=[Image.new("RGB", size)])
        with pytest.raises(InputError, match="is a strip of .*, one side more than 200 times"):
            AnySize(cutter).check(size)

    class Processor:
        image_processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 336})

    OneSize(Processor()).check((8192, 8))
    with pytest.raises(InputError, match="is a strip of 1 x 8192 pixels, which becomes too large"):
        OneSize(Processor()).check((1, 8192))
