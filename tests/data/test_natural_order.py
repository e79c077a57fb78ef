from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monai_ssl_transfer.data.natural_order import natural_key


@given(
    st.lists(st.integers(0, 99999), unique=True, max_size=8), st.text(max_size=4), st.sampled_from(("", "_a", ".tif"))
)
def test_numbers_are_sorted_as_numbers(numbers: list[int], prefix: str, suffix: str) -> None:
    start = prefix if not prefix[-1:].isascii() or not prefix[-1:].isdigit() else f"{prefix}_"
    names = [f"{start}{number}{suffix}" for number in numbers]
    assert sorted(names, key=natural_key) == [f"{start}{number}{suffix}" for number in sorted(numbers)]


@given(st.permutations(["²", "٣b", "1", "a1", "", "a", "-1", "01b", "1²"]))
def test_names_of_any_kind_have_one_order(names: list[str]) -> None:
    assert sorted(names, key=natural_key) == ["", "1", "01b", "1²", "-1", "a", "a1", "²", "٣b"]
