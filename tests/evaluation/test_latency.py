"""Models are timed in turn, each on one image at a time."""

import time

import numpy as np

from fashion.evaluation.latency import time_predictions


def test_models_are_timed_in_turn_on_one_image_at_a_time() -> None:
    calls: list[tuple[str, tuple[int, ...], int]] = []
    images = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((3, 4, 4), np.uint8)
    times = time_predictions(
        [lambda image, name=name: calls.append((name, image.shape, int(image[0, 0, 0]))) for name in "ab"],
        images,
        calls=4,
    )
    assert calls == [(name, (1, 4, 4), row) for row in (0, 1, 2, 0) for name in "ab"]
    assert times.shape == (2, 4)
    assert (times > 0).all()


def test_times_are_in_milliseconds() -> None:
    images = np.zeros((1, 4, 4), np.uint8)
    fast, slow = time_predictions([lambda _: None, lambda _: time.sleep(0.01)], images, calls=3)
    assert fast.max() < 10 <= slow.min()
