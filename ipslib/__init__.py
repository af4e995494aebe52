"""Iterative Patch Selection: many-megapixel images classified in memory that does not grow."""

__version__ = "0.1.0"
