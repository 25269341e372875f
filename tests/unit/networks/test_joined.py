"""Students side by side: how a representation is cut, joined, and added to."""

import pytest
import torch
from torch import nn

from edgekd.errors import BadSetting
from edgekd.networks import build_student, choose_student, parameters, parts_of
from edgekd.networks.joined import Joined, Parts, balanced, contiguous


def test_runs_differ_by_one_at_most():
    assert contiguous(6, 3) == ((0, 1), (2, 3), (4, 5))
    assert contiguous(8, 3) == ((0, 1, 2), (3, 4, 5), (6, 7))
    assert contiguous(3, 3) == ((0,), (1,), (2,))


@pytest.mark.parametrize("count", [0, 4])
def test_more_students_than_numbers_are_refused(count):
    with pytest.raises(BadSetting, match=f"--students: {count} students for a representation of 3 .* 1 to 3"):
        contiguous(3, count)


def test_variances_are_dealt_out_evenly():
    assert balanced([4.0, 3.0, 2.0, 1.0], 2) == ((0, 3), (1, 2))
    chunks = balanced([float(n % 5) for n in range(17)], 4)
    assert sorted(number for chunk in chunks for number in chunk) == list(range(17))
    assert [len(chunk) for chunk in chunks] == [5, 4, 4, 4]


def small(length: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, length))


def joined(parts: Parts, seed: int = 0) -> Joined:
    torch.manual_seed(seed)
    return Joined(small, parts, 2, None)


IMAGES = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(1))


def test_with_the_teacher_s_representation_the_head_answers_what_the_teacher_does():
    parts = Parts(((2, 0), (1,)), rectified=True)
    network = joined(parts)
    weight, bias, representation = torch.randn(2, 3), torch.randn(2), torch.rand(5, 3)
    network.head.begin_with(weight, bias)
    found = network.head(representation[:, parts.order])
    torch.testing.assert_close(found, representation @ weight.T + bias)
    below = representation.clone()
    below[:, 1] = -1.0
    counted = below.clamp_min(0)
    torch.testing.assert_close(network.head(below[:, parts.order]), counted @ weight.T + bias)


def test_no_gradient_passes_from_the_logits_to_the_students_that_learn_apart():
    network = joined(Parts(((0, 1), (2,))))
    _, logits = network.both(IMAGES, apart=True)
    logits.sum().backward()
    assert all(parameter.grad is None for parameter in network.students.parameters())
    assert network.head.last.weight.grad is not None
    _, logits = network.both(IMAGES, apart=False)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.students.parameters())


def test_an_added_student_adds_to_the_answer_of_its_chunk():
    network = joined(Parts(((0, 1), (2,)), added=(1,))).eval()
    assert network.parts.lengths == [2, 1, 1]
    first, second, more = (student(IMAGES) for student in network.students)
    representation, logits = network.both(IMAGES, apart=True)
    torch.testing.assert_close(representation, torch.cat([first, second + more], dim=1))
    torch.testing.assert_close(network(IMAGES), logits)


def test_students_that_do_not_learn_stay_as_they_are():
    network = joined(Parts(((0, 1), (2,)), added=(0,))).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.learn_only([2])
    network.train()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, 0.1)
    representation, logits = network.both(IMAGES, apart=True)
    (representation.square().sum() + logits.square().sum()).backward()
    optimizer.step()
    changed = {
        name.split(".")[1] for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert {name for name in changed if name.isdigit()} == {"2"}


@pytest.mark.parametrize("name", ["lenet5-half", "cnn-small", "mobilenetv3-small"])
def test_any_student_can_be_one_of_several(name):
    parts = Parts(contiguous(7, 3))
    network = build_student(name, 0.25, (1, 28, 28), 10, parts=parts)
    representation, logits = network.both(torch.rand(2, 1, 28, 28), apart=False)
    assert representation.shape == (2, 7)
    assert logits.shape == (2, 10)


def test_maps_are_joined_by_a_convolution_on_the_answer_s_grid():
    parts = Parts(contiguous(6, 2), grid=(8, 12), kernel=(3, 3))
    network = build_student("unet", 0.25, (3, 16, 24), 5, (16, 24), parts=parts)
    representation, logits = network.both(torch.rand(2, 3, 16, 24), apart=False)
    assert representation.shape == (2, 6, 8, 12)
    assert logits.shape == (2, 5, 16, 24)


def test_auto_aims_at_a_twentieth_of_the_teacher_for_all_together():
    parts = Parts(contiguous(64, 4))
    name, width = choose_student("auto", None, (1, 28, 28), 10, 2_000_000, parts=parts)
    found = parameters(build_student(name, width, (1, 28, 28), 10, parts=parts))
    assert 0.8 * 100_000 < found <= 1.01 * 100_000


def test_a_record_tells_parts():
    parts = Parts(((0, 2), (1,)), (1,), True, (4, 5), (3, 3))
    told = {"chunks": [[0, 2], [1]], "added": [1], "rectified": True, "grid": [4, 5], "kernel": [3, 3]}
    assert parts_of(told) == parts
    assert parts_of({"chunks": [[0, 2], [1]]}) == Parts(((0, 2), (1,)))
