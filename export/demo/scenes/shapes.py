"""The outlines and the colours of shapes."""

import colorsys
import math

import numpy as np
from numpy.typing import NDArray

from export.demo.scenes.scene import COLOURS


def shade(random: np.random.Generator, colour: str) -> NDArray[np.float64]:
    """Return a random shade of a colour that still has its name, RGB from 0 to 255."""
    hue, saturation, value = COLOURS[colour]
    jittered = colorsys.hsv_to_rgb(
        ((hue + random.uniform(-6, 6)) / 360) % 1,
        saturation * random.uniform(0.85, 1),
        min(1, value * random.uniform(0.88, 1.08)),
    )
    return np.array(jittered) * 255


def outlines(
    random: np.random.Generator, shape: str, middle: NDArray[np.float64], radius: float
) -> list[NDArray[np.float64]]:
    """Return polygons [N,2] whose union is the shape, inside the radius and turned a little."""
    turn = random.uniform(-0.3, 0.3)
    if shape == "circle":
        angles = np.linspace(0, 2 * math.pi, 64, endpoint=False)
        polygons = [np.stack([np.cos(angles), np.sin(angles)], 1)]
    elif shape == "square":
        polygons = [np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.74]
    elif shape == "triangle":
        angles = np.deg2rad([-90, 30, 150])
        polygons = [np.stack([np.cos(angles), np.sin(angles)], 1)]
    elif shape == "star":
        angles = np.deg2rad(np.arange(10) * 36 - 90)
        lengths = np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
        polygons = [np.stack([np.cos(angles), np.sin(angles)], 1) * lengths]
    else:
        arm = np.array([[-1, -0.32], [1, -0.32], [1, 0.32], [-1, 0.32]]) * 0.93
        polygons = [arm, arm[:, ::-1]]
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    return [polygon @ rotation.T * radius + middle for polygon in polygons]
