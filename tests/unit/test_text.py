"""Numbers and paths as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flak.text import cell_width, elide_path, format_count, format_latency, format_size

PATH = "/data/train/2024/shards/shard-00042.tar"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"), (1, "1B"), (1023, "1023B"), (1024, "1.0K"), (4096, "4.0K"), (4099, "4.0K"), (102_348, "99.9K"),
        (102_349, "100K"), (131_072, "128K"), (1_047_999, "1023K"), (1_048_064, "1.0M"), (1 << 20, "1.0M"),
        (13_632_405_504, "12.7G"), (1 << 40, "1.0T"), ((1 << 63) - 1, "8.0E"),
    ],
)  # fmt: skip
def test_sizes(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("latency_ns", "text"),
    [
        (0, "0ns"), (999, "999ns"), (1000, "1.0us"), (9_949, "9.9us"), (9_950, "10us"), (91_000, "91us"),
        (999_499, "999us"), (999_500, "1.0ms"), (4_200_000, "4.2ms"), (35_000_000_000, "35s"), (10**12, "1000s"),
    ],
)  # fmt: skip
def test_latencies(latency_ns: int, text: str) -> None:
    assert format_latency(latency_ns) == text


@given(st.integers(0, (1 << 63) - 1))
def test_sizes_fit_five_characters(size: int) -> None:
    assert len(format_size(size)) <= 5


@given(st.integers(0, 9999 * 10**9))
def test_latencies_fit_five_characters(latency_ns: int) -> None:
    assert len(format_latency(latency_ns)) <= 5


def test_counts_are_in_groups_of_three() -> None:
    assert [format_count(n) for n in (0, 999, 1000, 1_204_113)] == ["0", "999", "1 000", "1 204 113"]


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (39, PATH),
        (38, "/data/train/…/shards/shard-00042.tar"),
        (30, "/data/…/shards/shard-00042.tar"),
        (24, "/data/…/shard-00042.tar"),
        (20, "/…/shard-00042.tar"),
        (17, "…/shard-00042.tar"),
        (15, "shard-0…042.tar"),
        (3, "s…r"),
        (0, "s…r"),
    ],
)
def test_paths_lose_their_middle_and_keep_their_name(width: int, text: str) -> None:
    assert elide_path(PATH, width) == text


@pytest.mark.parametrize(
    ("path", "width", "text"),
    [
        ("relative/folder/name", 15, "relative/…/name"),
        ("name", 4, "name"),
        ("file_id 77", 6, "fi… 77"),
        ("/日本語/データ/名前.txt", 14, "/…/名前.txt"),
        ("/very-long-first-component/b/c/name", 14, "/…/b/c/name"),
        ("/", 3, "/"),
        ("", 3, ""),
    ],
)
def test_odd_paths(path: str, width: int, text: str) -> None:
    assert elide_path(path, width) == text


@given(st.text(st.characters(exclude_categories=["C"]) | st.sampled_from("//日é"), max_size=60), st.integers(3, 70))
def test_elided_paths_fit(path: str, width: int) -> None:
    text = elide_path(path, width)
    assert cell_width(text) <= width
    assert text == path or "…" in text
    assert cell_width(path) > width or text == path


def test_wide_characters_take_two_columns_and_combining_none() -> None:
    assert [cell_width(text) for text in ("abc", "日本", "e\u0301", "…", "")] == [3, 4, 1, 1, 0]
