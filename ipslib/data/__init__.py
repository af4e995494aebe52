"""Images as bags of patches: grids, digits, noise, and the tasks drawn from them."""
