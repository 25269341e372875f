"""Sounds that anybody can make again: spectrograms of half a second of tones, sweeps, clicks and noise.

What a microsensor listens to is an image to its network, too. Pitch, loudness, phase and noise are drawn at random.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import signal

RATE, FRAMES, BINS = 8000, 32, 32
"""Samples a second; an image is BINS bands high and FRAMES moments wide, 16 ms apart."""
_WINDOW = 256
_TIMES = np.arange((FRAMES - 1) * _WINDOW // 2 + _WINDOW) / RATE

Wave = Callable[[float, np.random.Generator], np.ndarray]


def _beats(pitch: float, random: np.random.Generator) -> np.ndarray:
    return np.sin(2 * np.pi * pitch * _TIMES) * (1 + signal.square(2 * np.pi * random.uniform(6, 12) * _TIMES)) / 2


def _clicks(_: float, random: np.random.Generator) -> np.ndarray:
    return 8.0 * (random.random(len(_TIMES)) < 0.003)


def _rising(pitch: float, random: np.random.Generator) -> np.ndarray:
    return signal.chirp(_TIMES, pitch, _TIMES[-1], pitch * random.uniform(1.6, 3.0))


def _vibrating(pitch: float, random: np.random.Generator) -> np.ndarray:
    depth = random.uniform(60, 160) / random.uniform(4, 8)
    return np.sin(2 * np.pi * pitch * _TIMES + depth * np.sin(2 * np.pi * 6 * _TIMES))


WAVES: tuple[Wave, ...] = (
    lambda pitch, _: np.sin(2 * np.pi * pitch * _TIMES),
    lambda pitch, _: signal.square(2 * np.pi * pitch / 2 * _TIMES),
    lambda pitch, _: np.sin(2 * np.pi * pitch * _TIMES) + np.sin(2 * np.pi * 1.5 * pitch * _TIMES),
    _rising,
    lambda pitch, random: _rising(pitch, random)[::-1],
    _vibrating,
    _beats,
    _clicks,
    lambda pitch, _: np.sin(2 * np.pi * pitch * _TIMES) * np.exp(-8 * _TIMES),
    lambda _, random: random.normal(0, 1, len(_TIMES)),
)
"""A tone, a square wave, a fifth, up, down, vibrato, beats, clicks, a bell, noise."""


def sounds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` spectrograms, uint8 `[N, 1, 32, 32]`, louder is lighter, and which of `WAVES` they are, int64 `[N]`."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(WAVES), size=count)
    return np.stack([_spectrogram(WAVES[label], random) for label in labels])[:, None], labels.astype(np.int64)


def _spectrogram(wave: Wave, random: np.random.Generator) -> np.ndarray:
    loud = wave(random.uniform(300, 1300), random) * 10 ** random.uniform(-0.5, 0.5)
    heard = np.roll(loud, random.integers(-400, 400)) + random.normal(0, 0.2, len(loud))
    power = signal.spectrogram(heard, RATE, nperseg=_WINDOW, noverlap=_WINDOW // 2)[2][: 4 * BINS]
    decibels = 10 * np.log10(power.reshape(BINS, 4, -1).mean(1) + 1e-9)
    found: np.ndarray = np.rint((decibels[::-1] + 60) * (255 / 45)).clip(0, 255).astype(np.uint8)
    return found
