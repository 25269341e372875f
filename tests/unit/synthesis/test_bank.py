"""The replay bank: what goes in comes out, the oldest goes first."""

import io

import pytest
import torch

from edgekd.synthesis.bank import Bank
from edgekd.teachers.codes import from_codes, rounded, to_codes


def test_codes_are_a_fixed_point_of_decoding_and_encoding():
    codes = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_codes(from_codes(codes, -2.5, 7.0), -2.5, 7.0), codes)


def test_rounding_lets_the_gradient_through():
    images = torch.rand(3, 4, requires_grad=True)
    on_grid = rounded(images, 0.0, 1.0)
    (on_grid * 2).sum().backward()
    assert torch.equal(images.grad, torch.full((3, 4), 2.0))
    expected = from_codes(to_codes(images.detach(), 0.0, 1.0), 0.0, 1.0)
    torch.testing.assert_close(on_grid.detach(), expected, rtol=0, atol=1e-6)


def numbered(*values: int) -> tuple[torch.Tensor, torch.Tensor]:
    column = torch.tensor(values, dtype=torch.float32)
    return (column / 255).view(-1, 1, 1, 1), column.view(-1, 1)


def test_the_ring_forgets_the_oldest():
    bank = Bank(4, (1, 1, 1), (1,), 0.0, 1.0)
    bank.add(*numbered(1, 2, 3))
    bank.add(*numbered(4, 5))
    codes, logits = bank.in_order()
    assert codes.flatten().tolist() == logits.flatten().tolist() == [2, 3, 4, 5]
    images, answers = bank.draw(64)
    assert torch.equal((images.flatten() * 255).round(), answers.flatten())


def test_what_is_to_stay_is_not_forgotten():
    bank = Bank(5, (1, 1, 1), (1,), 0.0, 1.0, stay=2)
    for values in ((1, 2, 3, 4), (5, 6), (7, 8, 9), (10,)):
        bank.add(*numbered(*values))
    assert bank.codes.flatten().tolist() == [1, 2, 9, 10, 8]
    assert bank.in_order()[0].flatten().tolist() == [8, 9, 10]


def test_a_restored_bank_goes_on_as_the_old_one():
    bank, other = (Bank(4, (1, 1, 1), (1,), 0.0, 1.0) for _ in range(2))
    bank.add(*numbered(1, 2, 3, 4, 5, 6))
    other.load_state_dict(bank.state_dict())
    for each in (bank, other):
        each.add(*numbered(7))
    assert bank.in_order()[0].flatten().tolist() == other.in_order()[0].flatten().tolist() == [4, 5, 6, 7]


def test_a_bank_is_written_as_far_as_it_is_filled():
    bank, file = Bank(1000, (1, 8, 8), (100,), 0.0, 1.0), io.BytesIO()
    bank.add(torch.rand(2, 1, 8, 8), torch.rand(2, 100))
    torch.save(bank.state_dict(), file)
    assert file.getbuffer().nbytes < 10_000


@pytest.mark.parametrize("written", [3, 8, 13])
def test_the_newest_are_the_end_of_all_in_order(written):
    bank = Bank(8, (1, 1, 1), (1,), 0.0, 1.0)
    for value in range(written):
        bank.add(*numbered(value))
    for count in (1, 3, 8, 100):
        for newest, whole in zip(bank.newest(count), bank.in_order(), strict=True):
            assert torch.equal(newest, whole[-count:])
