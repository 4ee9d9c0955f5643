"""Render the synthetic set blocks_rgbd_sim: boxes, cylinders and balls dropped on a floor, as colour, depth and label.

``pip install pybullet``, then ``python tools/generate_blocks_rgbd.py --out FOLDER --frames 300 --seed 0`` (minutes,
no GPU, no OpenGL). Neither modality is enough alone, by design: a share of the objects wears the floor's own texture,
so that only depth shows them, and decals are 1 mm thick prints on the floor, so that only colour shows them. Frames
depend on the seed and their own number alone; those that are there already are kept. The part that the package ships is
made with ``--keep-train 140``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

Array = NDArray[Any]
CLASSES = ("floor", "wall", "box", "cylinder", "ball", "decal")
FLOOR, WALL, BOX, CYLINDER, BALL, DECAL = range(len(CLASSES))
VOID = 255
WIDTH, HEIGHT = 160, 120
#: Of the camera: vertical field of view in degrees, and the nearest and farthest distance in metres.
FIELD_OF_VIEW, NEAR, FAR = 55.0, 0.05, 6.0
#: Shares of the frames in their order: training, validation, test.
SHARES = {"train": 200 / 300, "val": 40 / 300, "test": 60 / 300}
#: Physics steps (1/240 s each) until the objects lie still.
SETTLE_STEPS = 240
UPRIGHT = (0.0, 0.0, 0.0, 1.0)
FLOOR_PIXELS, PATCH_PIXELS = 512, 56


def engine() -> Any:
    """The physics engine, which the tool alone needs."""
    try:
        return importlib.import_module("pybullet")
    except ImportError:
        raise SystemExit("this tool needs pybullet: pip install pybullet") from None


def texture(draw: np.random.Generator, size: int = 128, repeats: int = 1) -> Image.Image:
    """Two colours as plain ground, stripes, checks or blotches, always with grain."""
    first, second = draw.uniform(30, 225, 3), draw.uniform(30, 225, 3)
    mask = pattern(draw, int(draw.integers(4)), size, repeats)[..., None]
    pixels = first * (1 - mask) + second * mask + draw.normal(scale=10, size=(size, size, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def pattern(draw: np.random.Generator, kind: int, size: int, repeats: int) -> Array:
    """Where the second colour is, (size, size) of 0 and 1."""
    rows, columns = np.mgrid[:size, :size]
    if kind == 0:
        return np.zeros((size, size))
    if kind == 1:
        angle, waves = draw.uniform(0, np.pi), draw.integers(4, 14) * repeats
        along = columns * np.cos(angle) + rows * np.sin(angle)
        return np.asarray(np.sin(along * 2 * np.pi * waves / size) > 0, float)
    if kind == 2:
        side = max(2, size // (draw.integers(4, 12) * repeats))
        return np.asarray((columns // side + rows // side) % 2, float)
    noise = draw.normal(size=(size, size))
    squares = np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None] ** 2
    smooth = np.fft.irfft2(np.fft.rfft2(noise) * np.exp(-squares * draw.uniform(60, 500)), (size, size))
    return (smooth > 0).astype(float)


class Scene:
    """One room while it is built; ``label_of`` says of every body what it is.

    Args:
        bullet: The engine.
        draw: All chance of this frame, in the order of the calls.
        folder: For textures, which the engine reads from files.
        number: Of the frame; the engine keeps textures by file name.
    """

    def __init__(self, bullet: Any, draw: np.random.Generator, folder: Path, number: int) -> None:
        self.bullet = bullet
        self.draw = draw
        self.folder = folder
        self.number = number
        self.label_of: dict[int, int] = {}

    def load_texture(self, name: str, picture: Image.Image | None = None) -> int:
        """A texture; a drawn one where none is given."""
        path = self.folder / f"{self.number}_{name}.png"
        (picture or texture(self.draw)).save(path)
        return int(self.bullet.loadTexture(str(path)))

    def add(
        self, label: int, shape: tuple[int, int], mass: float, place: Sequence[float], turn: Sequence[float], skin: int
    ) -> None:
        """A body of a shape (for collisions, for the picture)."""
        body = self.bullet.createMultiBody(mass, *shape, place, turn)
        self.bullet.changeVisualShape(
            body, -1, textureUniqueId=skin, rgbaColor=[1, 1, 1, 1], specularColor=[0.05, 0.05, 0.05]
        )
        self.bullet.changeDynamics(body, -1, rollingFriction=0.02, spinningFriction=0.02, lateralFriction=0.8)
        self.label_of[body] = label

    def box(self, half: Sequence[float]) -> tuple[int, int]:
        """A box of half the given extents, in metres."""
        kind, extents = self.bullet.GEOM_BOX, list(half)
        return (
            self.bullet.createCollisionShape(kind, halfExtents=extents),
            self.bullet.createVisualShape(kind, halfExtents=extents),
        )

    def turned(self, angles: Any) -> Sequence[float]:
        """Quaternion of Euler angles."""
        turn: Sequence[float] = self.bullet.getQuaternionFromEuler(list(angles))  # (x, y, z, w)
        return turn

    def add_room(self) -> Image.Image:
        """Floor and wall; returns the floor's picture, which camouflaged objects wear."""
        floor = texture(self.draw, FLOOR_PIXELS, repeats=5)
        floor_skin = self.load_texture("floor", floor)
        wall_skin = self.load_texture("wall", texture(self.draw, 256, repeats=2))
        self.add(FLOOR, self.box([1.6, 1.6, 0.05]), 0, [0, 0, -0.05], UPRIGHT, floor_skin)
        self.add(WALL, self.box([1.6, 0.05, 1.0]), 0, [0, self.draw.uniform(0.75, 1.2), 0.95], UPRIGHT, wall_skin)
        return floor

    def add_decals(self) -> None:
        """One to four prints, 1 mm thick."""
        for number in range(self.draw.integers(1, 5)):
            half = [*self.draw.uniform(0.06, 0.18, 2), 0.0005]
            place = [*self.draw.uniform([-0.55, -0.5], [0.55, 0.6]), 0.0006]
            shape, turn = self.box(half), self.turned([0, 0, self.draw.uniform(0, np.pi)])
            self.add(DECAL, shape, 0, place, turn, self.load_texture(f"decal{number}"))

    def add_objects(self, floor: Image.Image, camouflage: float) -> list[dict[str, Any]]:
        """Three to seven objects in the air; returns what they are."""
        facts = []
        for number in range(self.draw.integers(3, 8)):
            label = int(self.draw.integers(BOX, BALL + 1))
            hidden = bool(self.draw.random() < camouflage)
            shape = self.object_shape(label)
            place = [*self.draw.uniform([-0.55, -0.5], [0.55, 0.6]), self.draw.uniform(0.2, 0.5)]
            any_way = self.draw.random() < 0.5
            angles = self.draw.uniform(0, np.pi, 3) if any_way else [0, 0, self.draw.uniform(0, np.pi)]
            skin = self.load_texture(f"object{number}", self.patch_of(floor) if hidden else None)
            self.add(label, shape, 0.3, place, self.turned(angles), skin)
            facts.append({"class": CLASSES[label], "camouflaged": hidden})
        return facts

    def object_shape(self, label: int) -> tuple[int, int]:
        """A box, cylinder or ball of a drawn size."""
        bullet = self.bullet
        if label == BOX:
            return self.box(list(self.draw.uniform(0.06, 0.16, 3)))
        if label == CYLINDER:
            radius, length = self.draw.uniform(0.06, 0.13), self.draw.uniform(0.14, 0.36)
            return (
                bullet.createCollisionShape(bullet.GEOM_CYLINDER, radius=radius, height=length),
                bullet.createVisualShape(bullet.GEOM_CYLINDER, radius=radius, length=length),
            )
        radius = self.draw.uniform(0.07, 0.15)
        return (
            bullet.createCollisionShape(bullet.GEOM_SPHERE, radius=radius),
            bullet.createVisualShape(bullet.GEOM_SPHERE, radius=radius),
        )

    def patch_of(self, floor: Image.Image) -> Image.Image:
        """A piece of the floor as a texture."""
        left, top = self.draw.integers(0, FLOOR_PIXELS - PATCH_PIXELS, 2)
        return floor.crop((left, top, left + PATCH_PIXELS, top + PATCH_PIXELS)).resize((128, 128))

    def photograph(self) -> tuple[Array, Array, Array]:
        """Colour (H, W, 3) uint8, depth in mm (H, W) uint16 with 0 for none, label (H, W) uint8."""
        bullet, draw = self.bullet, self.draw
        yaw, pitch, distance = draw.uniform(-35, 35), draw.uniform(-62, -28), draw.uniform(1.0, 1.5)
        target = [*draw.uniform(-0.1, 0.1, 2), 0.05]
        view = bullet.computeViewMatrixFromYawPitchRoll(target, distance, yaw, pitch, draw.uniform(-4, 4), 2)
        projection = bullet.computeProjectionMatrixFOV(FIELD_OF_VIEW, WIDTH / HEIGHT, NEAR, FAR)
        _, _, colour, buffer, bodies = bullet.getCameraImage(
            WIDTH,
            HEIGHT,
            view,
            projection,
            lightDirection=[*draw.uniform(-1, 1, 2), draw.uniform(0.8, 2)],
            shadow=1,
            lightAmbientCoeff=draw.uniform(0.35, 0.6),
            lightDiffuseCoeff=draw.uniform(0.4, 0.7),
            lightSpecularCoeff=0.05,
            renderer=bullet.ER_TINY_RENDERER,
        )
        bodies = np.reshape(bodies, (HEIGHT, WIDTH))
        metres = FAR * NEAR / (FAR - (FAR - NEAR) * np.reshape(buffer, (HEIGHT, WIDTH)))
        depth = np.where(bodies >= 0, np.round(metres * 1000), 0).astype(np.uint16)
        label = np.full((HEIGHT, WIDTH), VOID, np.uint8)
        for body, what in self.label_of.items():
            label[bodies == body] = what
        return np.reshape(colour, (HEIGHT, WIDTH, 4))[..., :3].astype(np.uint8), depth, label


def render(bullet: Any, folder: Path, seed: int, number: int, camouflage: float) -> tuple[Array, Array, Array, Any]:
    """A frame: colour, depth, label, and what its objects are."""
    bullet.resetSimulation()
    bullet.setGravity(0, 0, -9.81)
    scene = Scene(bullet, np.random.default_rng([seed, number]), folder, number)
    floor = scene.add_room()
    scene.add_decals()
    objects = scene.add_objects(floor, camouflage)
    for _ in range(SETTLE_STEPS):
        bullet.stepSimulation()
    return (*scene.photograph(), objects)


def make_splits(frames: int, keep_train: int | None) -> dict[str, list[str]]:
    """Names of the frames of each part; scenes are independent, so parts follow their order."""
    first_val = round(SHARES["train"] * frames)
    first_test = first_val + round(SHARES["val"] * frames)
    bounds = {"train": (0, first_val), "val": (first_val, first_test), "test": (first_test, frames)}
    names = {part: [f"{number:04d}" for number in range(*bound)] for part, bound in bounds.items()}
    return names | {"train": names["train"][:keep_train]}


def write_frame(out: Path, name: str, colour: Array, depth: Array, label: Array) -> None:
    """The three pictures of a frame, without loss; the label last, as the sign that the frame is whole."""
    Image.fromarray(colour).save(out / "rgb" / f"{name}.webp", lossless=True, quality=100, method=6)
    Image.fromarray(depth).save(out / "depth" / f"{name}.png", optimize=True)
    Image.fromarray(label).save(out / "label" / f"{name}.png", optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--camouflage", type=float, default=0.4, help="share of objects that wear the floor's texture")
    parser.add_argument("--keep-train", type=int, help="so many training frames at most; validation and test stay")
    given = parser.parse_args(arguments)
    splits = make_splits(given.frames, given.keep_train)
    bullet = engine()
    for kind in ("rgb", "depth", "label"):
        (given.out / kind).mkdir(parents=True, exist_ok=True)
    bullet.connect(bullet.DIRECT)
    with tempfile.TemporaryDirectory() as folder:
        for name in track([name for names in splits.values() for name in names], "rendering"):
            if not (given.out / "label" / f"{name}.png").is_file():
                colour, depth, label, _ = render(bullet, Path(folder), given.seed, int(name), given.camouflage)
                write_frame(given.out, name, colour, depth, label)
    (given.out / "splits.json").write_text(json.dumps(splits, indent=0) + "\n", encoding="utf-8")
    print(f"{given.out}: " + ", ".join(f"{len(names)} {part}" for part, names in splits.items()))


if __name__ == "__main__":
    main()
