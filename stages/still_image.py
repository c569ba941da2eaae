"""Still images through Pillow: upright, RGB. Runs in the decoding child."""

from __future__ import annotations

from typing import IO, Any

import numpy as np

from stages.picture import MAX_IMAGE_PIXELS, Box, MediaError, View, check_size

GROUND = 128  # grey that shows through transparent pixels
ORIENTATION = 0x0112
# By content, whatever the name says. Of Pillow's others one would start Ghostscript on what the file holds.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
CLOCKWISE = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}  # EXIF orientation: degrees to turn, mirrored ones too


def _open(path: str | IO[bytes]) -> Any:
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = None  # check_size looks at the dimensions, before anything is decoded
    try:
        image = PIL.Image.open(path, formats=FORMATS)
    except PIL.UnidentifiedImageError as error:
        raise MediaError(f"is not an image of a known format: {', '.join(FORMATS)}") from error
    check_size(*image.size, MAX_IMAGE_PIXELS)
    return image


def _rgb(image: Any) -> np.ndarray:
    """uint8 RGB (h, w, 3) of a Pillow image of any mode."""
    import PIL.Image

    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        values = np.asarray(image).astype(np.float64)
        full = 65535.0 if values.max(initial=0.0) > 255 else 255.0
        grey = np.clip(values * (255.0 / full), 0, 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = PIL.Image.new("RGBA", image.size, (GROUND, GROUND, GROUND, 255))
        image = PIL.Image.alpha_composite(ground, image)
    return np.asarray(image.convert("RGB"))


def image_header(path: str | IO[bytes]) -> dict[str, Any]:
    """Fields of `stages.decode.Header` for an image."""
    with _open(path) as image:
        turn = CLOCKWISE.get(image.getexif().get(ORIENTATION, 1), 0)
        width, height = image.size[::-1] if turn in (90, 270) else image.size
        return {"width": width, "height": height, "codec": str(image.format).lower(), "rotation": turn}


def read_picture(path: str | IO[bytes]) -> np.ndarray:
    """The whole picture, upright, uint8 RGB (h, w, 3)."""
    import PIL.ImageOps

    with _open(path) as image:
        return _rgb(PIL.ImageOps.exif_transpose(image))


def read_image(path: str, size: int, box: Box | None) -> tuple[np.ndarray, View]:
    """The picture, uint8 RGB (h, w, 3) with its shorter side scaled to `size`, and its view."""
    picture = read_picture(path)
    view = View.of(picture.shape[1], picture.shape[0], box, size)
    out = np.empty((view.target[1], view.target[0], 3), np.uint8)
    view.write(picture, out)
    return out, view
