import pytest
import torch

from assay_policy.sampling import choose, noise_of

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])


def frequencies(*, temperature: float, top_p: float, draws: int = 20000) -> list[float]:
    uniform = noise_of(3, answers=draws, tokens=1)[:, 0]
    chosen = choose(LOGITS.expand(draws, -1), temperature=temperature, top_p=top_p, uniform=uniform)
    return (torch.bincount(chosen, minlength=5) / draws).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_the_softmax_says(temperature: float):
    expected = torch.softmax(LOGITS / temperature, -1).tolist()
    assert frequencies(temperature=temperature, top_p=1.0) == pytest.approx(expected, abs=0.012)


def test_a_barred_token_never_comes():
    assert frequencies(temperature=2.0, top_p=1.0)[4] == 0.0


def test_the_nucleus_is_the_fewest_tokens_that_reach_the_mass_and_is_renormalised():
    likeliest, second = torch.softmax(LOGITS, -1)[:2].tolist()
    found = frequencies(temperature=1.0, top_p=likeliest + 0.01)
    assert found[:2] == pytest.approx([likeliest / (likeliest + second), second / (likeliest + second)], abs=0.012)
    assert found[2:] == [0.0, 0.0, 0.0]


def test_temperature_zero_takes_the_first_of_the_likeliest():
    assert choose(torch.tensor([[0.0, 3.0, 3.0]]), temperature=0, top_p=1.0, uniform=None).tolist() == [1]


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (1 - 2**-53, 2)])
def test_the_ends_of_the_noise_fall_on_tokens_that_can_come(uniform: float, token: int):
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert choose(logits, temperature=1.0, top_p=1.0, uniform=torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


def test_large_batches_are_drawn_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch):
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    uniform = noise_of(0, answers=50, tokens=1)[:, 0]
    whole = choose(logits, temperature=1.0, top_p=0.9, uniform=uniform)
    monkeypatch.setattr("assay_policy.sampling._BLOCK_ELEMENTS", 3 * 40)
    assert choose(logits, temperature=1.0, top_p=0.9, uniform=uniform).tolist() == whole.tolist()


def test_noise_is_the_same_for_the_same_seed_and_another_for_another():
    assert noise_of(5, answers=3, tokens=4).equal(noise_of(5, answers=3, tokens=4))
    assert not noise_of(5, answers=3, tokens=4).equal(noise_of(6, answers=3, tokens=4))
