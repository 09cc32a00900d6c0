"""PackedMap: a dict, but for its size."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from flak.packed import PackedMap

# Keys of few different bytes: entries whose neighbours' bytes look like a key are common then.
KEYS = st.binary(min_size=3, max_size=3).map(lambda key: bytes(byte & 1 for byte in key))
STEPS = st.lists(st.tuples(st.sampled_from(["put", "pop"]), KEYS, st.integers(0, 257)), max_size=300)


@settings(deadline=None)
@given(STEPS)
def test_it_is_a_dict(steps: list[tuple[str, bytes, int]]) -> None:
    packed, plain = PackedMap(3, 2), dict[bytes, int]()
    for what, key, value in steps:
        if what == "put":
            packed.put(key, value)
            plain[key] = value
        else:
            assert packed.pop(key) == plain.pop(key, None)
        assert packed.get(key) == plain.get(key)
    assert len(packed) == len(plain)
    assert {key: packed.get(key) for key in plain} == plain


def test_many_keys_are_all_found_and_their_buckets_stay_small() -> None:
    packed, count = PackedMap(8, 4), 20_011
    for n in range(count):
        packed.put(struct.pack("<Q", n * 2654435761), n)
    assert all(packed.get(struct.pack("<Q", n * 2654435761)) == n for n in range(count))
    assert packed.get(struct.pack("<Q", 1)) is None
    assert max(len(bucket) for bucket in packed._buckets) < 12 * 48 * 8
    for n in range(0, count, 2):
        assert packed.pop(struct.pack("<Q", n * 2654435761)) == n
    assert len(packed) == count // 2
