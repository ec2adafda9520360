"""Draws that can be repeated from their number alone."""

from __future__ import annotations

from kmeans.random_streams import RandomStreams


def test_a_draw_depends_on_seed_and_number_alone() -> None:
    first, second = RandomStreams(7), RandomStreams(7)
    numbers = [first.next().integers(1 << 60) for _ in range(3)]
    assert len(set(numbers)) == 3
    second.made = 2
    assert second.next().integers(1 << 60) == numbers[2]
    assert second.made == first.made == 3
    assert RandomStreams(8).next().integers(1 << 60) not in numbers
