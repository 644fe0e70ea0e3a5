from __future__ import annotations

import numpy as np

from pipeline.backbones import known_images


def test_they_are_the_same_each_time_and_have_the_colours_of_imagenet() -> None:
    images = known_images.make(96)

    np.testing.assert_array_equal(images, known_images.make(96))
    assert images.shape == (8, 96, 96, 3)
    assert images.dtype == np.uint8
    pixels = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(pixels.mean(axis=0), [0.485, 0.456, 0.406], atol=0.08)
    np.testing.assert_allclose(pixels.std(axis=0), [0.229, 0.224, 0.225], atol=0.04)
    # Channels of photographs go together: 0.91 and 0.80 for red with green and blue in 500 images of ImageNet.
    np.testing.assert_allclose(np.corrcoef(pixels.T)[0, 1:], [0.91, 0.80], atol=0.06)


def test_their_spectrum_falls_as_that_of_photographs() -> None:
    """Power in proportion to frequency^-2 or a little steeper (Field 1987; Torralba & Oliva 2003)."""
    grey = known_images.make(128).mean(axis=-1)
    grey = (grey - grey.mean(axis=(1, 2), keepdims=True)) * np.outer(np.hanning(128), np.hanning(128))
    power = (np.abs(np.fft.fft2(grey)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128)))
    band = (frequency > 0.02) & (frequency < 0.4)

    slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]

    assert -3.0 < slope < -1.7
