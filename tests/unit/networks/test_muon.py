"""The optimizer against `torch.optim.Muon`, and against the memory format of its parameters."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekd.networks.muon import ADAM_SHARE, Muon


def network(memory_format: torch.memory_format = torch.contiguous_format) -> nn.Sequential:
    torch.manual_seed(0)
    filters = nn.Conv2d(1, 8, 3, bias=False), nn.Conv2d(8, 6, 3, bias=False)
    layers = nn.Sequential(*filters, nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 4, 5))
    return layers.to(memory_format=memory_format)  # type: ignore[call-overload,no-any-return]


def step(layers: nn.Module, optimizer: Muon) -> None:
    optimizer.zero_grad()
    torch.manual_seed(1)
    layers(torch.randn(7, 1, 6, 6)).square().sum().backward()
    optimizer.step()


def test_a_filter_moves_as_torchs_muon_moves_its_matrix() -> None:
    layers = network()
    before = layers[1].weight.detach().clone()
    step(layers, Muon(layers.parameters(), 0.1))
    matrix = nn.Parameter(before.flatten(1).clone())
    matrix.grad = layers[1].weight.grad.flatten(1)
    torch.optim.Muon([matrix], lr=0.1, weight_decay=0.0, momentum=0.9).step()
    assert torch.equal(layers[1].weight.detach().flatten(1), matrix.detach())
    assert (layers[1].weight.detach() - before).norm() > 0.05


def test_the_rest_moves_as_adam_moves_it() -> None:
    layers = network()
    twin = copy.deepcopy(layers)
    step(layers, Muon(layers.parameters(), 0.1))
    others = [twin[0].weight, *twin[2].parameters(), twin[4].bias]
    for parameter, moved in zip(others, [layers[0].weight, *layers[2].parameters(), layers[4].bias], strict=True):
        parameter.grad = moved.grad
    torch.optim.Adam(others, lr=0.1 * ADAM_SHARE, betas=(0.9, 0.99)).step()
    assert torch.equal(twin[0].weight, layers[0].weight)
    assert torch.equal(twin[2].weight, layers[2].weight)
    assert torch.equal(twin[4].bias, layers[4].bias)


def test_the_memory_format_does_not_matter() -> None:
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        layers = network(memory_format)
        step(layers, Muon(layers.parameters(), 0.1))
        results.append(layers[1].weight.detach())
    assert torch.allclose(*results, atol=2e-3)  # the iteration inside runs in bfloat16


def test_a_stored_state_goes_on_bitwise() -> None:
    straight = network(torch.channels_last)
    optimizer = Muon(straight.parameters(), 0.1)
    step(straight, optimizer)
    resumed = network(torch.channels_last)
    again = Muon(resumed.parameters(), 0.1)
    resumed.load_state_dict(straight.state_dict())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(straight, optimizer)
    step(resumed, again)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_rates_are_set_through_the_groups(rate: float) -> None:
    layers = network()
    optimizer = Muon(layers.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("share", 1.0)
    before = copy.deepcopy(layers.state_dict())
    step(layers, optimizer)
    moved = [name for name, value in layers.named_parameters() if not torch.equal(value, before[name])]
    assert bool(moved) == (rate > 0)
