"""Where latent vectors come from: normal ones, and labels behind a noisy layer that a round forgets."""

import pytest
import torch

from edgekd.networks.latents import GaussianLatents, NoisyLatents


def test_gaussian_latents_say_nothing_of_classes():
    torch.manual_seed(0)
    source = GaussianLatents(7, 5)
    vectors, labels = source()
    assert (vectors.shape, labels, source.renew()) == ((5, 7), None, False)
    torch.manual_seed(0)
    assert torch.equal(vectors, torch.randn(5, 7))


@pytest.mark.parametrize(("count", "most"), [(40, 4), (44, 5), (7, 1)])
def test_classes_are_wanted_equally_often_whatever_the_batch(count, most):
    labels = NoisyLatents(3, 10, count)()[1]
    times = torch.bincount(labels, minlength=10)
    assert len(labels) == count
    assert times.max() == most
    assert times.min() >= count // 10


def test_classes_that_do_not_fit_into_a_batch_take_turns():
    source = NoisyLatents(3, 50, 10)
    seen = set()
    for _ in range(60):
        source.renew()
        seen |= set(source()[1].tolist())
    assert seen == set(range(50))


def test_fresh_vectors_are_standard_normal_and_of_one_class_in_different_groups_independent():
    torch.manual_seed(0)
    vectors, labels = NoisyLatents(500, 10, 400)()
    assert vectors.mean().item() == pytest.approx(0.0, abs=0.02)
    assert vectors.std().item() == pytest.approx(1.0, abs=0.02)
    of_one = vectors[labels == 3]
    correlation = (of_one @ of_one.T / 500).fill_diagonal_(0)
    assert correlation.abs().max() < 0.25


def test_a_round_s_layer_is_trained_and_then_forgotten():
    source = NoisyLatents(4, 3, 6)
    first, _ = source()
    again, _ = source()
    assert torch.equal(first, again)
    first.square().sum().backward()
    assert source.weight.grad.abs().sum() > 0
    with torch.no_grad():
        source.bias += 1
    assert source.renew()
    assert not source.bias.any()
    assert not torch.equal(source()[0], first)
    restored = NoisyLatents(4, 3, 6)
    restored.load_state_dict(source.state_dict())
    assert torch.equal(restored.eval()()[0], source.eval()()[0])
    assert torch.equal(restored()[1], source()[1])
