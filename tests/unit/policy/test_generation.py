import time

import pytest

from assay_data.conversations import Message
from assay_kit.errors import Cancelled, DeadlineExceeded
from assay_policy.generation import Ticket, prompt_seeds


def turns(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def test_a_prompts_seed_hangs_neither_on_its_neighbours_nor_on_its_place():
    assert prompt_seeds(7, [turns("a"), turns("b")])[1] == prompt_seeds(7, [turns("c"), turns("d"), turns("b")])[2]


def test_the_same_prompt_twice_gets_two_seeds():
    first, second = prompt_seeds(7, [turns("a"), turns("a")])
    assert first != second


def test_seeds_differ_with_the_requests_seed_and_the_role():
    assert prompt_seeds(7, [turns("a")]) != prompt_seeds(8, [turns("a")])
    assert prompt_seeds(7, [(Message("user", "a"),)]) != prompt_seeds(7, [(Message("system", "a"),)])


def test_seeds_stay_within_the_bits_asked_for():
    assert all(0 <= seed < 2**31 for seed in prompt_seeds(2**64 - 1, [turns(str(i)) for i in range(200)], bits=31))


def test_a_ticket_is_good_until_it_is_abandoned_or_its_time_is_up():
    ticket = Ticket(time.monotonic() + 60)
    ticket.check()
    ticket.abandon()
    with pytest.raises(Cancelled):
        ticket.check()
    with pytest.raises(DeadlineExceeded):
        Ticket(time.monotonic()).check()
