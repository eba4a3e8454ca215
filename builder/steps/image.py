"""Bytes of an image file → pixels, ready for a network. A step of build-repo; it needs numpy and Pillow."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

RESIZE = ("crop", "pad", "stretch")
COLOURS = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
LAYOUTS = ("nchw", "nhwc")
DTYPES = ("float32", "float16", "uint8")
SAMPLES = 10


def _one_of(word: str, value: str, known: Any) -> None:  # noqa: ANN401 - a tuple or a dict
    if value not in known:
        msg = f"{word} is {value!r}; known: {', '.join(known)}"
        raise ValueError(msg)


class Image:
    """Decode, turn upright by EXIF, resize, normalise."""

    def __init__(  # noqa: PLR0913 - the words of the spec
        self,
        *,
        size: int | Sequence[int],
        resize: str = "crop",
        shorter_side: int | None = None,
        interpolation: str = "bilinear",
        color: str = "rgb",
        scale: float | None = None,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        pad_value: int = 0,
        layout: str = "nchw",
        dtype: str = "float32",
        max_pixels: int = 50_000_000,
    ) -> None:
        """What the pixels become: `(pixel · scale - mean) / std`.

        Args:
            size: height and width, or one number for both.
            resize: `crop` scales the shorter side to `shorter_side` and cuts the centre; `pad` fits the whole image in
                and fills the rest with `pad_value`; `stretch` changes the proportions.
            shorter_side: for `crop`, the shorter side before it is cut; as small as `size` allows when left out.
            interpolation: `bilinear`, `bicubic`, `nearest` or `lanczos`, with antialiasing.
            color: `rgb`, `bgr` or `gray`.
            scale: factor of a pixel of 0 to 255; 1/255, and 1 for the dtype uint8.
            mean: subtracted after scaling, one number or one for each channel.
            std: divided by, one number or one for each channel.
            pad_value: of 0 to 255.
            layout: `nchw` or `nhwc`.
            dtype: `float32`, `float16` or `uint8`.
            max_pixels: a larger image is refused before it is decoded.
        """
        _one_of("resize", resize, RESIZE)
        _one_of("interpolation", interpolation, INTERPOLATIONS)
        _one_of("color", color, COLOURS)
        _one_of("layout", layout, LAYOUTS)
        _one_of("dtype", dtype, DTYPES)
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            msg = f"size is {size}; height and width are at least 1"
            raise ValueError(msg)
        if shorter_side is not None and (resize != "crop" or shorter_side < max(height, width)):
            msg = f"shorter_side is {shorter_side}; it belongs to resize: crop, and is at least as large as size"
            raise ValueError(msg)
        self.size, self.resize, self.shorter_side = (int(height), int(width)), resize, shorter_side
        self.interpolation, self.color, self.pad_value = interpolation, color, pad_value
        self.layout, self.dtype, self.max_pixels = layout, dtype, max_pixels
        self.scale = (1.0 if dtype == "uint8" else 1 / 255) if scale is None else scale
        self.mean, self.std = self._channels("mean", mean), self._channels("std", std)

    def _channels(self, word: str, value: float | Sequence[float]) -> NDArray[np.float32]:
        import numpy as np

        values = np.atleast_1d(np.asarray(value, np.float32))
        channels = 1 if self.color == "gray" else 3
        if values.shape not in ((1,), (channels,)) or (word == "std" and not values.all()):
            msg = f"{word} is {value}; one number, or one for each of {channels} channels"
            raise ValueError(msg)
        return values

    def __call__(self, image: NDArray[np.object_]) -> dict[str, NDArray[np.generic]]:
        """Bytes of files, one a row, → `pixels` in the layout and dtype.

        Raises:
            ValueError: a row is no image that can be read.
        """
        import numpy as np

        rows = [self._pixels(number, item) for number, item in enumerate(image.ravel())]
        pixels = np.stack(rows).astype(np.float32)
        if pixels.ndim == 3:  # noqa: PLR2004 - gray images have no axis of channels
            pixels = pixels[..., None]
        if self.color == "bgr":
            pixels = pixels[..., ::-1]
        pixels = (pixels * np.float32(self.scale) - self.mean) / self.std
        if self.dtype == "uint8":
            pixels = np.clip(np.rint(pixels), 0, 255)
        if self.layout == "nchw":
            pixels = pixels.transpose(0, 3, 1, 2)
        return {"pixels": np.ascontiguousarray(pixels, dtype=self.dtype)}

    def _pixels(self, number: int, content: bytes) -> NDArray[np.uint8]:
        import numpy as np
        from PIL import Image as Pillow
        from PIL import ImageOps

        try:
            picture: Any = Pillow.open(io.BytesIO(content))
            if picture.width * picture.height > self.max_pixels:
                msg = f"{picture.width} by {picture.height} pixels are more than max_pixels, {self.max_pixels}"
                raise ValueError(msg)  # noqa: TRY301 - said together with the others
            picture = _opaque(ImageOps.exif_transpose(picture)).convert(COLOURS[self.color])
        except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
            said = str(error).split(" <")[0]
            msg = f"row {number} ({len(content)} bytes) is no image that can be read: {said}"
            raise ValueError(msg) from None
        method = Pillow.Resampling[self.interpolation.upper()]
        return np.asarray(self._resized(picture, method), np.uint8)

    def _resized(self, picture: Any, method: Any) -> Any:  # noqa: ANN401 - Pillow's
        from PIL import Image as Pillow

        height, width = self.size
        if self.resize == "stretch":
            return picture.resize((width, height), method)
        across, down = width / picture.width, height / picture.height
        if self.resize == "pad":
            ratio = min(across, down)
            inner = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
            whole = Pillow.new(picture.mode, (width, height), (self.pad_value,) * len(picture.getbands()))
            whole.paste(picture.resize(inner, method), ((width - inner[0]) // 2, (height - inner[1]) // 2))
            return whole
        ratio = self.shorter_side / min(picture.size) if self.shorter_side else max(across, down)
        outer = (max(width, round(picture.width * ratio)), max(height, round(picture.height * ratio)))
        left, top = (outer[0] - width) // 2, (outer[1] - height) // 2
        return picture.resize(outer, method).crop((left, top, left + width, top + height))

    def samples(self, seed: int) -> dict[str, NDArray[np.object_]]:
        """Images of several sizes, kinds and formats: smooth noise, as photos compress."""
        import numpy as np

        items = np.empty(SAMPLES, dtype=object)
        items[:] = [_sample(np.random.default_rng((seed, number)), number) for number in range(SAMPLES)]
        return {"image": items}


def _opaque(picture: Any) -> Any:  # noqa: ANN401 - Pillow's
    """Transparency over white, and 16 bits a channel brought to 8, which Pillow would cut off."""
    from PIL import Image as Pillow

    if picture.mode.startswith("I"):
        return picture.convert("I").point(lambda value: value / 256).convert("L")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Pillow.alpha_composite(Pillow.new("RGBA", layer.size, "white"), layer)
    return picture


def _sample(generator: Any, number: int) -> bytes:  # noqa: ANN401 - numpy's
    from PIL import Image as Pillow

    modes = ("RGB", "L", "RGBA", "RGB")
    mode = modes[number % len(modes)]
    channels = {"RGB": 3, "L": 1, "RGBA": 4}[mode]
    coarse = generator.integers(0, 256, (6, 8, channels)).astype("uint8")
    small = Pillow.fromarray(coarse if channels > 1 else coarse[..., 0])
    picture = small.resize((160 + 37 * number, 120 + 53 * (number % 5)), Pillow.Resampling.BICUBIC)
    stream, exif = io.BytesIO(), Pillow.Exif()
    exif[0x0112] = 1 + number % 8  # which side is up
    kind = "PNG" if mode == "RGBA" or number % 3 == 2 else "JPEG"  # noqa: PLR2004
    picture.save(stream, kind, exif=exif)
    return stream.getvalue()
