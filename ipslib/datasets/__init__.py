"""Data sets: Megapixel MNIST, own images, traffic signs, slides; each opened by its config."""
