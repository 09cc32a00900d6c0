"""Which file an access belongs to, and what to call it.

The stream names files by file_ids; after the kernel side forgot a name the same file may get another. `Tables.files`
says which ids are one identity (dev, ino, generation). Here each identity gets a small number, in the order met.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flak.analysis.groups import Ints
from flak.analysis.ids import IdMap
from flak.events import Tables
from flak.packed import PackedMap


class Files:
    """Numbers 0, 1, 2 … for the files of a run."""

    def __init__(self) -> None:
        self._map = IdMap()  # file_id → number
        self._numbers = PackedMap(8, 4)  # the identity's first file_id → number
        self._unresolved: set[int] = set()  # file_ids whose identity had not arrived when they were met
        self.file_ids = array("Q")  # by number: the identity's first file_id
        self._first_paths = array("Q")  # by number: path_id at the first use

    def __len__(self) -> int:
        return len(self.file_ids)

    def numbers(self, file_ids: NDArray[np.uint32], path_ids: NDArray[np.uint32], tables: Tables) -> Ints:
        """The number of each access's file, given the access's own ids."""

        def resolve(new: Ints, first: Ints) -> Ints:
            pairs = zip(new.tolist(), path_ids[first].tolist(), strict=True)
            return np.array([self._number(file_id, path_id, tables) for file_id, path_id in pairs], np.int64)

        return self._map.lookup(file_ids.astype(np.int64), resolve)

    def fold(self, tables: Tables) -> list[tuple[int, int]]:
        """Pairs (number, its true number) of files that turned out to be one, because a name came late."""
        resolved = [file_id for file_id in self._unresolved if file_id in tables.files]
        self._unresolved.difference_update(resolved)
        folded = []
        for late in resolved:
            file_id, number = tables.files[late], self._numbers.pop(_key(late))
            assert number is not None
            true_number = self._numbers.get(_key(file_id))
            if true_number is None:
                self._numbers.put(_key(file_id), number)
                true_number = number
            if true_number == number:
                self.file_ids[number] = file_id
                continue
            self._first_paths[true_number] = self._first_paths[min(number, true_number)]
            keys, values = self._map.items()
            self._map.replace(keys, np.where(values == number, true_number, values))
            folded.append((number, true_number))
        return folded

    def labels(self, tables: Tables) -> Callable[[int], str]:
        """A function from a file's number to its path at first use; "file_id N" while no name has arrived."""
        by_identity: dict[int, str] = {}
        if any(path_id not in tables.paths for path_id in self._first_paths):  # else all names need not be gone through
            for file in tables.paths.values():
                by_identity.setdefault(tables.files.get(file.file_id, file.file_id), tables.shown_path(file))

        def label(number: int) -> str:
            file = tables.paths.get(self._first_paths[number])
            if file is not None:
                return tables.shown_path(file)
            return by_identity.get(self.file_ids[number]) or f"file_id {self.file_ids[number]}"

        return label

    def _number(self, file_id: int, path_id: int, tables: Tables) -> int:
        if file_id not in tables.files:
            self._unresolved.add(file_id)
        identity = tables.files.get(file_id, file_id)
        number = self._numbers.get(_key(identity))
        if number is None:
            number = len(self.file_ids)
            self._numbers.put(_key(identity), number)
            self.file_ids.append(identity)
            self._first_paths.append(path_id)
        return number


def _key(file_id: int) -> bytes:
    return file_id.to_bytes(8, "little")
