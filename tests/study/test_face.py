"""What notebooks import from the study."""

from pathlib import Path

import pytest

import ipslib.study


@pytest.mark.parametrize("name", ipslib.study.__all__)
def test_every_name_is_there_and_no_module_hides_it(name):
    """A module that has been imported stands in its package under its own name."""
    assert getattr(ipslib.study, name) is not None
    assert not Path(ipslib.study.__file__).with_name(f"{name}.py").exists()
