from collections import Counter

import pytest

from assay_training.order import planned_order, steps_of


def test_each_pass_shows_every_example_once_and_the_rest_of_a_pass_goes_first_in_the_next() -> None:
    order = planned_order(list(range(1, 11)), batch_size=4, steps=5, seed=3)
    assert len(order) == 20
    assert Counter(order) == {index: 2 for index in range(10)}


def test_the_seed_alone_decides_the_order() -> None:
    lengths = [(7 * index) % 31 + 1 for index in range(100)]
    assert planned_order(lengths, batch_size=8, steps=30, seed=1) == planned_order(lengths, batch_size=8, steps=30, seed=1)
    assert planned_order(lengths, batch_size=8, steps=30, seed=1) != planned_order(lengths, batch_size=8, steps=30, seed=2)


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    lengths = [(7 * index) % 31 + 1 for index in range(100)]
    assert planned_order(lengths, batch_size=8, steps=40, seed=1)[:80] == planned_order(lengths, batch_size=8, steps=10, seed=1)


def test_examples_of_a_batch_are_of_like_length() -> None:
    lengths = [(7 * index) % 101 + 1 for index in range(512)]
    order = planned_order(lengths, batch_size=8, steps=64, seed=0)
    padded = sum(8 * max(lengths[i] for i in order[at : at + 8]) for at in range(0, 512, 8))
    assert padded < 1.15 * sum(lengths)


def test_more_examples_a_batch_than_there_are_is_no_trap() -> None:
    order = planned_order([3, 1, 2], batch_size=8, steps=2, seed=0)
    assert len(order) == 16 and set(order) == {0, 1, 2}


@pytest.mark.parametrize(("examples", "epochs", "max_steps", "steps"), [(600, 1, 0, 19), (1000, 3, 0, 94), (10, 0.1, 0, 1), (600, 5, 7, 7)])
def test_steps_are_counted_from_epochs_unless_they_are_given(examples: int, epochs: float, max_steps: int, steps: int) -> None:
    assert steps_of(examples, batch_size=32, epochs=epochs, max_steps=max_steps) == steps
