"""The canvas of the procedural town: colour, height and class of each pixel, and its illumination.

Lengths are in pixels unless a name says metres. Objects are placed in a frame (u, v) of the scene, which is
rotated against columns and rows and slightly bent; streets and houses are straight in it.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

METRE: Final = 4.0
"""Pixels per metre: the ground sampling distance is 25 cm."""

IMPERVIOUS, BUILDING, LOW_VEGETATION, TREE, CAR, CLUTTER = range(6)


class Patch(NamedTuple):
    """Part of the canvas around an object, with the object's coordinates.

    Attributes:
        window: Rows and columns of the canvas.
        a: (h, w) coordinate along the object's length, from its centre.
        b: (h, w) coordinate across, from its centre.
    """

    window: tuple[slice, slice]
    a: Array
    b: Array


def smooth_noise(rng: np.random.Generator, size: int, sigma: float) -> Array:
    """Noise (size, size) with mean 0 and variance 1, smoothed by a Gaussian of `sigma` pixels."""
    frequency = np.fft.fftfreq(size)
    radial = frequency[:, None] ** 2 + np.fft.rfftfreq(size)[None, :] ** 2
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-2 * (np.pi * sigma) ** 2 * radial)
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


class Canvas:
    """Colour, height, slope and class of every pixel of a scene.

    Args:
        rng: Random generator, which determines the scene.
        size: Side S of the scene.
        sun: Direction in which shadows fall, in radians from the columns towards the rows.
        elevation: Tangent of the sun's elevation angle.

    Attributes:
        albedo: (S, S, 4) reflectance as 0..255: red, green, blue, near infrared.
        height: (S, S) height above the ground.
        slope: (S, S) sunlight on the surface, relative to level ground.
        label: (S, S) uint8, one of this module's classes.
        fine, medium, coarse: (S, S) noise of increasing wavelength, for textures.
        sun: Direction in which shadows fall as (rows, columns), of length 1.
    """

    def __init__(self, rng: np.random.Generator, size: int, sun: float, elevation: float) -> None:
        self.rng = rng
        self.size = size
        self.sun = (float(np.sin(sun)), float(np.cos(sun)))
        self.elevation = elevation
        self.albedo = np.zeros((size, size, 4), dtype=np.float32)
        self.height = np.zeros((size, size), dtype=np.float32)
        self.slope = np.ones((size, size), dtype=np.float32)
        self.label = np.full((size, size), LOW_VEGETATION, dtype=np.uint8)
        self.fine, self.medium, self.coarse = (smooth_noise(rng, size, sigma) for sigma in (0.7, 3.0, 16.0))
        angle = rng.uniform(0, np.pi / 2)
        self._cos, self._sin = float(np.cos(angle)), float(np.sin(angle))
        rows, columns = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
        bend = 3.0 * smooth_noise(rng, size, 60.0)
        self._u = columns * self._cos + rows * self._sin + bend
        self._v = rows * self._cos - columns * self._sin + bend.T

    def patch(self, u: float, v: float, reach: float, angle: float = 0.0) -> Patch | None:
        """The part of the canvas within `reach` of a point; None if it is outside the scene.

        Args:
            u: Coordinate of the point in the scene's frame.
            v: The other coordinate.
            reach: Half the side of the part.
            angle: Angle from the u axis to the object's length, in radians.
        """
        middle = (self.size - 1) / 2
        row, column = middle + u * self._sin + v * self._cos, middle + u * self._cos - v * self._sin
        # The bend moves a point by less than 14 pixels.
        around = reach + 14
        first = [max(int(centre - around), 0) for centre in (row, column)]
        last = [min(int(centre + around) + 1, self.size) for centre in (row, column)]
        if first[0] >= last[0] or first[1] >= last[1]:
            return None
        window = slice(first[0], last[0]), slice(first[1], last[1])
        du, dv = self._u[window] - np.float32(u), self._v[window] - np.float32(v)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return Patch(window, du * cos + dv * sin, dv * cos - du * sin)

    def fill(
        self,
        patch: Patch,
        inside: NDArray[np.bool_],
        colour: NDArray[np.floating[Any]],
        label: int,
        height: NDArray[np.floating[Any]] | float = 0.0,
    ) -> None:
        """Covers part of a patch.

        Args:
            patch: The part of the canvas.
            inside: (h, w) bool, the pixels to cover.
            colour: (4,) or (h, w, 4) reflectance.
            label: Class of the pixels.
            height: Height above the ground, a number or (h, w); its gradient determines the slope.
        """
        relief = np.broadcast_to(np.asarray(height, dtype=np.float32), inside.shape)
        self.albedo[patch.window][inside] = np.broadcast_to(colour, (*inside.shape, 4))[inside]
        self.height[patch.window][inside] = relief[inside]
        self.slope[patch.window][inside] = self._lit(relief)[inside] if min(inside.shape) > 1 else 1
        self.label[patch.window][inside] = label

    def _lit(self, relief: Array) -> Array:
        """The sunlight on a surface of heights (h, w) by Lambert's law, relative to level ground."""
        down, right = np.gradient(relief)
        towards = down * self.sun[0] + right * self.sun[1]
        cosine = (towards + self.elevation) / np.sqrt(down**2 + right**2 + 1)
        return np.asarray(np.clip(cosine / self.elevation, 0.35, 1.45), dtype=np.float32)

    def render(self) -> NDArray[np.uint8]:
        """The image of the scene: (S, S, 4) uint8, red, green, blue, near infrared."""
        sunlit = (1 - soften(self._shadow()))[..., None] * self.slope[..., None]
        sky = np.asarray([0.30, 0.33, 0.38, 0.26], dtype=np.float32)
        light = sky + (1.04 - sky) * sunlit
        gain = self.rng.uniform(0.93, 1.07, 4) * self.rng.uniform(0.92, 1.08)
        image = soften(self.albedo * light) * gain + self.rng.uniform(2, 9)
        image = image + self.rng.normal(0, 2.5, image.shape)
        return np.asarray(np.clip(np.rint(image), 0, 255), dtype=np.uint8)

    def _shadow(self) -> Array:
        """(S, S), 1 where a higher object is between the pixel and the sun, else 0."""
        shadow = np.zeros_like(self.height)
        size = self.size
        for step in range(1, min(int(self.height.max() / self.elevation) + 2, size)):
            rows, columns = (round(step * part) for part in self.sun)
            target = tuple(slice(max(shift, 0), size + min(shift, 0)) for shift in (rows, columns))
            source = tuple(slice(max(-shift, 0), size + min(-shift, 0)) for shift in (rows, columns))
            ray = self.height[source] - step * self.elevation
            shadow[target] = np.maximum(shadow[target], ray > self.height[target] + 0.5)
        return shadow


def soften(image: Array) -> Array:
    """Blurs an image (H, W) or (H, W, B) slightly, with weights 0.2, 0.6 and 0.2 along both axes."""
    for axis in (0, 1):
        padded = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
        length = image.shape[axis]
        before, here, after = (padded.take(range(first, first + length), axis) for first in range(3))
        image = np.asarray(0.2 * before + 0.6 * here + 0.2 * after, dtype=np.float32)
    return image
