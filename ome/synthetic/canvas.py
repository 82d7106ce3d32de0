"""The surface that the procedural town is painted on, and the light that falls on it.

Lengths are in pixels unless a name says metres. A scene has its own frame (u, v), turned against the rows and
columns and slightly bent, in which streets and houses are straight.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

METRE: Final = 4.0
"""Pixels in a metre: the ground sampling distance is 25 cm."""

IMPERVIOUS, BUILDING, LOW_VEGETATION, TREE, CAR, CLUTTER = range(6)


class Patch(NamedTuple):
    """Part of the canvas around an object, in the object's own frame.

    Attributes:
        window: Rows and columns on the canvas.
        a: (h, w) distance from the object's centre along its length.
        b: (h, w) distance across.
    """

    window: tuple[slice, slice]
    a: Array
    b: Array


def smooth_noise(rng: np.random.Generator, size: int, sigma: float) -> Array:
    """(size, size) noise of zero mean and unit variance, smoothed by a Gaussian of `sigma` pixels."""
    frequency = np.fft.fftfreq(size)
    radial = frequency[:, None] ** 2 + np.fft.rfftfreq(size)[None, :] ** 2
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-2 * (np.pi * sigma) ** 2 * radial)
    noise = np.fft.irfft2(spectrum, s=(size, size))
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float32)


class Canvas:
    """Colour, height, slope and class of every pixel of a scene.

    Args:
        rng: Decides the scene.
        size: Side of the scene.

    Attributes:
        albedo: (S, S, 4) reflectance as 0..255: red, green, blue, near infrared.
        height: (S, S) above the ground.
        slope: (S, S) light received relative to level ground.
        label: (S, S) uint8, one of this module's classes.
        fine, medium, coarse: (S, S) noise of growing wavelength, for textures.
        sun: Direction of the shadows as (rows, columns), of length 1; `elevation` is the sun's tangent.
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
        """The part of the canvas within `reach` of a point; None when that is outside the scene.

        Args:
            u: The point, in the scene's frame.
            v: The point, in the scene's frame.
            reach: Half the side of the part.
            angle: Direction of the object's length against the scene's u axis, in radians.
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
            height: Above the ground; its gradient turns the surface to or from the sun.
        """
        relief = np.broadcast_to(np.asarray(height, dtype=np.float32), inside.shape)
        self.albedo[patch.window][inside] = np.broadcast_to(colour, (*inside.shape, 4))[inside]
        self.height[patch.window][inside] = relief[inside]
        self.slope[patch.window][inside] = self._lit(relief)[inside] if min(inside.shape) > 1 else 1
        self.label[patch.window][inside] = label

    def _lit(self, relief: Array) -> Array:
        """Lambert's law for a relief, relative to level ground."""
        down, right = np.gradient(relief)
        towards = down * self.sun[0] + right * self.sun[1]
        cosine = (towards + self.elevation) / np.sqrt(down**2 + right**2 + 1)
        return np.asarray(np.clip(cosine / self.elevation, 0.35, 1.45), dtype=np.float32)

    def render(self) -> NDArray[np.uint8]:
        """The scene as the camera sees it: (S, S, 4) uint8, red, green, blue, near infrared."""
        sunlit = (1 - soften(self._shadow()))[..., None] * self.slope[..., None]
        sky = np.asarray([0.30, 0.33, 0.38, 0.26], dtype=np.float32)
        light = sky + (1.04 - sky) * sunlit
        gain = self.rng.uniform(0.93, 1.07, 4) * self.rng.uniform(0.92, 1.08)
        seen = soften(self.albedo * light) * gain + self.rng.uniform(2, 9)
        seen = seen + self.rng.normal(0, 2.5, seen.shape)
        return np.asarray(np.clip(np.rint(seen), 0, 255), dtype=np.uint8)

    def _shadow(self) -> Array:
        """1 where something between the pixel and the sun is higher than the ray, else 0."""
        shadow = np.zeros_like(self.height)
        size = self.size
        for step in range(1, min(int(self.height.max() / self.elevation) + 2, size)):
            rows, columns = (round(step * part) for part in self.sun)
            to = tuple(slice(max(shift, 0), size + min(shift, 0)) for shift in (rows, columns))
            source = tuple(slice(max(-shift, 0), size + min(-shift, 0)) for shift in (rows, columns))
            ray = self.height[source] - step * self.elevation
            shadow[to] = np.maximum(shadow[to], ray > self.height[to] + 0.5)
        return shadow


def soften(image: Array) -> Array:
    """Blurs (H, W) or (H, W, B) as an objective does: a fifth of each neighbour, along both axes."""
    for axis in (0, 1):
        padded = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
        length = image.shape[axis]
        before, here, after = (padded.take(range(first, first + length), axis) for first in range(3))
        image = np.asarray(0.2 * before + 0.6 * here + 0.2 * after, dtype=np.float32)
    return image
