"""A map of very many small numbers: keys of one size in bytes → integers, at little more than the bytes they take.

A dict of tuples and integers takes some 300 bytes an entry; here it is the entry and a tenth. Nothing is ever copied as
a whole, so no single entry takes long. It knows nothing of what the keys are; its users are `archive` and those who
keep something for every name of a run.
"""

from __future__ import annotations

__all__ = ["PackedMap"]

_CROWD = 48  # entries to a bucket: searching one takes as long as finding it


class PackedMap:
    """Keys of `key_size` bytes, values of 0 … 256**value_size - 1. Linear hashing (Litwin, 1980): one bucket more, and
    one of the others divided with it, for every so many entries.
    """

    __slots__ = ("_buckets", "_count", "_entry_size", "_key_size", "_mask", "_value_size")

    def __init__(self, key_size: int, value_size: int) -> None:
        self._key_size = key_size
        self._value_size = value_size
        self._entry_size = key_size + value_size
        self._buckets = [bytearray()]
        self._mask = 0  # all ones, the least that covers the number of the last bucket
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: bytes) -> int | None:
        """The value of a key, None when there is none."""
        bucket = self._buckets[self._place(key)]
        at = self._find(bucket, key)
        return None if at < 0 else int.from_bytes(bucket[at + self._key_size : at + self._entry_size], "little")

    def put(self, key: bytes, value: int) -> None:
        """Give a key a value, whether or not it had one."""
        bucket = self._buckets[self._place(key)]
        at = self._find(bucket, key)
        packed = value.to_bytes(self._value_size, "little")
        if at >= 0:
            bucket[at + self._key_size : at + self._entry_size] = packed
            return
        bucket += key + packed
        self._count += 1
        if self._count > _CROWD * len(self._buckets):
            self._divide()

    def pop(self, key: bytes) -> int | None:
        """Take a key out; the value it had, None when it had none."""
        value = self.get(key)
        if value is not None:
            bucket = self._buckets[self._place(key)]
            at = self._find(bucket, key)
            del bucket[at : at + self._entry_size]
            self._count -= 1
        return value

    def _place(self, key: bytes) -> int:
        # Python's hash of bytes is keyed: nobody can choose names that all end up in one bucket.
        place = hash(key) & self._mask
        return place if place < len(self._buckets) else place & self._mask >> 1

    def _find(self, bucket: bytearray, key: bytes) -> int:
        at = bucket.find(key)
        while at > 0 and at % self._entry_size:  # bytes of two neighbours that look like it
            at = bucket.find(key, at + 1)
        return at

    def _divide(self) -> None:
        """One bucket more, for those of another that belong there now."""
        new = len(self._buckets)
        if new > self._mask:
            self._mask = 2 * self._mask + 1
        divided, size = new & self._mask >> 1, self._entry_size
        bucket = self._buckets[divided]
        self._buckets.append(bytearray())
        stay, go = bytearray(), bytearray()
        for at in range(0, len(bucket), size):
            entry = bucket[at : at + size]
            if self._place(bytes(entry[: self._key_size])) == new:
                go += entry
            else:
                stay += entry
        self._buckets[divided], self._buckets[new] = bytearray(bytes(stay)), bytearray(bytes(go))
