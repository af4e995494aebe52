import platform
import subprocess
import sys
from unittest import mock

import pytest

from ipslib import allocator

PROGRAM = """
import resource, sys
from ipslib.allocator import keep_freed_memory

def faults_of_a_second_block():
    bytearray(64_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(64_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults_of_a_second_block())
assert keep_freed_memory()
print(faults_of_a_second_block())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_a_freed_block_is_used_again_without_new_pages():
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    before, after = map(int, said.stdout.split())
    assert after < before / 10


def test_other_allocators_are_left_alone():
    with mock.patch.object(platform, "libc_ver", return_value=("", "")):
        assert not allocator.keep_freed_memory()
