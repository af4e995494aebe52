"""Names that notebooks still take from here."""

from ipslib.study.arms import effect_in_words
from ipslib.study.tables import points

__all__ = ["effect_in_words", "points"]
