"""Megapixel MNIST: digits, noise, placement, and the scenes drawn from them patch by patch."""
