"""CAMELYON16 and other whole slides: from the slide to a bag of features, its labels, its marks."""
