"""Whether a new file is an image of which every pixel can be decoded, and what is unusual about it.

Nothing here is repaired: `images.decode` puts right what the notes name, the same way for training and serving.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import simplejpeg
from PIL import Image

from pipeline.dataset import images, orientation
from pipeline.dataset.images import Unreadable

JPEG_WARNING = "jpeg-warning"  # the note on a whole picture that libjpeg objects to, or only Pillow can decode
MAX_SCANS = 100  # of a progressive JPEG, as many as libjpeg writes at most; each costs a pass over all pixels
# What libjpeg warns of and then fills with invented pixels. Its other warnings, such as "unknown JFIF revision
# number", leave the picture whole.
_DAMAGE = ("premature end", "bad huffman code", "bad arithmetic code", "instead of rst")
_SKIPPED = re.compile(r"(\d+) extraneous bytes before marker 0x(..)")
_RESTARTS = range(0xD0, 0xD8)
_EXTENSIONS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "PNG": {".png", ".apng"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
    "WEBP": {".webp"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"},
}
# An extension that says nothing of images, or none at all, is not wrong: many stores have no names but digests.
_OTHERS = {".heic", ".heif", ".avif", ".jp2", ".svg", ".psd", ".ico", ".pdf", ".txt", ".html"}
_PAGE = re.compile(rb"(?i)<(!doctype html|html|head|body|!--|\?xml|error)")
_MARKUP = re.compile(rb"(?is)<(style|script)\b.*?</\1>|<[^>]*>")
_KNOWN = _OTHERS.union(*_EXTENSIONS.values())


def inspect(data: bytes, name: str, *, max_pixels: int, min_side: int) -> tuple[str, ...]:
    """The notes (docs/formats.md) on an image that can be used; `name` is its file name or uri.

    Raises `Unreadable` with the reason `empty`, `git-lfs-pointer`, `html-page`, `not-an-image`, `too-many-pixels`,
    `too-small` or `damaged`.
    """
    _refuse_text(data)
    opened = images.read_header(data, max_pixels)
    if min(opened.size) < min_side:
        raise Unreadable("too-small", f"{opened.width} x {opened.height} pixels, a side is below {min_side}")
    deep = images.is_deep(opened)
    # Before and after: loading turns a TIFF upright and forgets the tag, and a PNG's may follow the pixels.
    turned = opened.format != "PNG" and orientation.of_image(opened) != 1
    warned = False
    if images.encoding(opened) == "JPEG":
        warned = _check_jpeg(data, opened)
    else:
        images.check(opened)
    turned = turned or orientation.of_image(opened) != 1
    found = {
        "wrong-extension": _is_wrong(PurePosixPath(name).suffix.lower(), images.encoding(opened)),
        "cmyk": opened.mode == "CMYK",
        "16-bit": deep,
        "palette": opened.mode in {"P", "PA"},
        "alpha": opened.has_transparency_data,
        "animated": _is_animated(opened),
        "exif-rotated": turned,
        JPEG_WARNING: warned,
    }
    return tuple(note for note, holds in found.items() if holds)


def _refuse_text(data: bytes) -> None:
    if data.startswith(b"version https://git-lfs.github.com/spec/"):
        raise Unreadable("git-lfs-pointer", "git-lfs left a pointer here instead of the image")
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    if _PAGE.match(start) and b"<svg" not in start:
        words = _MARKUP.sub(b" ", start).decode("utf-8", "replace").split()
        raise Unreadable("html-page", f"a web page or an error message in XML: {' '.join(words)[:100]}")


def _check_jpeg(data: bytes, opened: Image.Image) -> bool:
    """Decode all coefficients, but to an eighth of the size: a third less work, and libjpeg says what is wrong.

    Returns whether it said anything, be it harmless.
    """
    if opened.info.get("progressive") and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise Unreadable("damaged", f"a progressive JPEG of {scans} scans, more than {MAX_SCANS}")
    space = {"L": "GRAY", "CMYK": "CMYK"}.get(opened.mode, "RGB")
    try:
        simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1)
    except ValueError as error:
        if _is_damage(str(error), data):
            raise Unreadable("damaged", str(error)) from None
        images.check(opened)  # harmless, or a kind of JPEG that simplejpeg does not know: Pillow decides
        return True
    return False


def _is_damage(warning: str, data: bytes) -> bool:
    if any(words in warning.lower() for words in _DAMAGE):
        return True
    skipped = _SKIPPED.search(warning)
    if skipped is None:
        return False
    try:
        simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        if str(error) == warning:
            return False  # between the segments before the first scan, where there are no pixels
    # Left over behind a scan: the decoder met a broken code, came into step again at the wrong place and had all its
    # blocks before the data ended (half of the photographs with 64 random bytes in the scan end like this). Only
    # padding is harmless, and no encoder that we know pads before a restart.
    count, marker = int(skipped[1]), int(skipped[2], 16)
    padding = rb"[\0\xff]{%d}\xff%b" % (count, re.escape(bytes([marker])))
    return marker in _RESTARTS or not re.search(padding, data)


def _is_wrong(extension: str, encoding: str) -> bool:
    return extension in _KNOWN and extension not in _EXTENSIONS[encoding]


def _is_animated(opened: Image.Image) -> bool:
    if images.encoding(opened) == "JPEG":
        return False  # the further pictures of an MPO are other views and previews
    try:
        return bool(getattr(opened, "is_animated", False))
    except Exception:  # a GIF whose second frame is damaged; the first, which counts, is whole
        return True
