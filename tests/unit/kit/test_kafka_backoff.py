from assay_kit.kafka_backoff import Backoff


def test_pauses_double_up_to_the_limit_and_each_is_cut_by_chance():
    backoff = Backoff(first_s=1.0, limit_s=8.0)
    for whole in (1.0, 2.0, 4.0, 8.0, 8.0):
        assert whole / 2 <= backoff.next() <= whole
    assert backoff.failures == 5


def test_after_a_success_pauses_begin_anew():
    backoff = Backoff(first_s=1.0, limit_s=100.0)
    for _ in range(6):
        backoff.next()
    backoff.succeeded()
    assert backoff.failures == 0
    assert backoff.next() <= 1.0


def test_no_two_workers_keep_step():
    backoffs = [Backoff(first_s=1.0) for _ in range(20)]
    assert len({backoff.next() for backoff in backoffs}) == 20


def test_many_failures_stay_within_the_limit():
    backoff = Backoff(limit_s=30.0)
    assert max(backoff.next() for _ in range(1_000)) <= 30.0
