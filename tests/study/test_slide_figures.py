from types import SimpleNamespace

import numpy as np

from ipslib.study.slide_figures import slide_overview


def test_an_overview_is_small_without_noise_and_of_the_same_colours():
    random = np.random.default_rng(0)
    clean = np.full((40, 40, 3), (243, 240, 242))
    clean[10:30, 10:25] = (230, 160, 200)
    clean[12:16, 12:16] = (80, 40, 120)
    noisy = np.clip(clean + random.normal(0, 0.8, (40, 40, 1)), 0, 255).astype(np.uint8)
    asked = []
    slide = SimpleNamespace(
        shape=(8000, 4000), mpp=0.25, overview=lambda mpp: asked.append(mpp) or noisy
    )
    shown = slide_overview(slide)
    assert asked == [8000 * 0.25 / 400]  # 400 pixels of the longer side
    assert shown.dtype == np.uint8 and np.abs(shown.astype(int) - noisy).max() <= 4
    assert len(np.unique(shown[:8].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(noisy[:8].reshape(-1, 3), axis=0)) > 1
