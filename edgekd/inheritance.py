"""What a student begins with that is a narrower network of its teacher's kind: the teacher's own layers, made narrow.

Layer by layer, as they are computed: those of the teacher's channels are kept by which what the next layers read is
told best (after ThiNet, Luo et al., ICCV 2017), and the student's layer gets the weights by which what *it* reads comes
nearest to them, by least squares (He, Zhang and Sun, ICCV 2017, eq. 4). Shown meanwhile are procedural images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekd.networks.standardized import Standardized
from edgekd.onnx_file import load
from edgekd.synthesis.supply import drawn
from edgekd.teachers.codes import within
from edgekd.teachers.filters import Layer, layers
from edgekd.teachers.graph import GraphTeacher, channel_moments

PIXELS, LEAST, MOST = 2**19, 32, 512
"""Of all images together, and the bounds of how many there are."""
ROWS, PART = 40_000, 32
"""Places of all images at which a layer is looked at, at most, for neighbours tell much the same; images at a time."""
RIDGE = 1e-4
"""Added to the variance of everything a layer reads, as a share of its mean."""
Inside = Mapping[str, Tensor]


@dataclass(frozen=True)
class Place:
    """One layer of a student: the module, the normalization behind it, and the shape of its answer to one image."""

    module: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d | None
    answer: torch.Size

    @property
    def depthwise(self) -> bool:
        return isinstance(self.module, nn.Conv2d) and self.module.groups > 1

    def like(self, layer: Layer, answer: Tensor) -> bool:
        """Whether it is a layer as the teacher's, and no wider."""
        module, sides = self.module, tuple(answer.shape[2:])
        if isinstance(module, nn.Conv2d):
            plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
            alike = plain and module.kernel_size == layer.kernel and self.depthwise == layer.depthwise
        else:
            alike = not layer.kernel and len(self.answer) == 1  # of sequences the channels come last
        return alike and tuple(self.answer[1:]) == sides and self.answer[0] <= layer.channels


@torch.no_grad()
def inherit(student: Standardized, teachers: Sequence[object]) -> int:
    """Let a student begin with its teacher's layers, if its own are those, but narrower, in the same order.

    It takes seconds, and comes to the same each time.

    Args:
        student: its weights and running statistics are replaced, or left as they are where it does not line up.
        teachers: on the CPU; where there are several, none is inherited from.

    Returns:
        How many layers it begins with: all of its own, or none.
    """
    teacher = teachers[0]
    if len(teachers) > 1 or not isinstance(teacher, GraphTeacher) or teacher.spec.vocabulary or teacher.order:
        return 0
    device = student.get_buffer("pixel_mean").device
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        count = _inherited(student.cpu().eval(), teacher)
    student.to(device)
    return count


def _inherited(student: Standardized, teacher: GraphTeacher) -> int:
    spec = teacher.spec
    count = max(LEAST, min(MOST, PIXELS // (spec.height * spec.width)))
    images = within(drawn(count, (spec.channels, spec.height, spec.width)), spec.low, spec.high)
    theirs, places = layers(load(spec.path), spec.logits_name), _places(student, images[:1])
    if not theirs or len(theirs) != len(places):
        return 0
    names = sorted({one.answer for one in theirs} | {one.entry for one in theirs if one.reads is not None})
    inside = dict(zip(names, teacher.inside(images, names), strict=True))
    pairs = list(zip(theirs, places, strict=True))
    sizes = _sizes(pairs, inside)
    kept = {group: _kept(theirs, group, size, inside) for group, size in sizes.items()}
    if sizes:
        with _taking((place, inside[one.answer][:, kept[one.group]]) for one, place in pairs):
            student(images)
    return len(places) if sizes else 0


def _places(student: nn.Module, images: Tensor) -> list[Place]:
    """A student's layers in the order in which they answer; none if it has weights besides."""
    found, answers = list[Place](), list[Tensor]()

    def note(module: nn.Module, shown: tuple[Tensor, ...], answer: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            found.append(Place(module, None, answer.shape[1:]))
            answers.append(answer)
        elif isinstance(module, nn.BatchNorm2d) and answers and shown[0] is answers[-1]:
            found[-1] = replace(found[-1], norm=module if module.affine and module.track_running_stats else None)

    with ExitStack() as stack:
        for module in student.modules():
            stack.callback(module.register_forward_hook(note).remove)
        student(images)
    taken = [one for place in found for one in (place.module, place.norm) if one is not None]
    weighty = [
        one for one in student.modules() if list(one.parameters(recurse=False)) or isinstance(one, nn.BatchNorm2d)
    ]
    return found if len(taken) == len(weighty) and set(taken) == set(weighty) else []


def _sizes(pairs: Sequence[tuple[Layer, Place]], inside: Inside) -> dict[int, int]:
    """How many channels of each group a student has; none where it does not line up with its teacher."""
    sizes = {layer.group: place.answer[0] for layer, place in pairs}
    same = all(sizes[layer.group] == place.answer[0] for layer, place in pairs)
    alike = all(place.like(layer, inside[layer.answer]) for layer, place in pairs)
    return sizes if same and alike and pairs[-1][0].channels == pairs[-1][1].answer[0] else {}


def _kept(theirs: Iterable[Layer], group: int, size: int, inside: Inside) -> Tensor:
    """The channels of a group that are kept, in their order.

    One after another is taken that tells most of what is not told yet by those taken before, every channel counted by
    what the layers that read it make of it (orthogonal matching pursuit on the second moments).
    """
    readers = [layer for layer in theirs if layer.reads == group]
    if not readers or size == len(readers[0].matters):
        return torch.arange(size)
    left, weights = [], []
    for layer in readers:
        maps = inside[layer.entry]
        rows = _numbers(maps.reshape(len(maps), len(layer.matters), -1))
        moments = (rows.T @ rows).double()
        total = (moments.diagonal() * layer.matters).sum().clamp_min(1e-30)
        left.append(moments)
        weights.append(layer.matters / total)
    taken: list[int] = []
    for _ in range(size):
        told = [
            (rest.square() @ matters) / rest.diagonal().clamp_min(1e-12)
            for rest, matters in zip(left, weights, strict=True)
        ]
        gain = torch.stack(told).sum(dim=0)
        gain[taken] = -1.0
        taken.append(int(gain.argmax()))
        one = taken[-1]
        left = [rest - torch.outer(rest[:, one], rest[one]) / rest[one, one].clamp_min(1e-12) for rest in left]
    return torch.tensor(sorted(taken))


@contextmanager
def _taking(pairs: Iterable[tuple[Place, Tensor]]) -> Iterator[None]:
    """While it lasts each layer of a student that is shown images first takes the weights by which it answers as told.

    Args:
        pairs: layers, and the answers `[N, channels, ...]` to the images that will be shown.
    """
    with ExitStack() as stack:
        for place, wanted in pairs:
            stack.callback(place.module.register_forward_pre_hook(partial(_take, place, wanted)).remove)
        yield


def _take(place: Place, wanted: Tensor, _: nn.Module, shown: tuple[Tensor, ...]) -> None:
    """Give a layer its weights, and the normalization behind it what makes it add a bias and change no more."""
    own, norm = place.module, place.norm
    weight, bias = _nearest(own, shown[0], wanted, biased=own.bias is not None or norm is not None)
    own.weight.copy_(weight)
    if own.bias is not None:
        own.bias.copy_(bias)
    if norm is None:
        return
    answer = own.forward(shown[0])
    mean, variance = channel_moments(answer)
    norm.get_buffer("running_mean").copy_(mean)
    norm.get_buffer("running_var").copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean if own.bias is not None else mean + bias)


def _nearest(own: nn.Conv2d | nn.Linear, shown: Tensor, wanted: Tensor, *, biased: bool) -> tuple[Tensor, Tensor]:
    """Weights and biases of a layer by which its answers come nearest to those that are wanted, by least squares.

    Args:
        own: the layer.
        shown: what it reads, `[N, C, H, W]` or `[N, F]`.
        wanted: its answers, `[N, O, h, w]` or `[N, O]`.
        biased: whether it has biases; they are zeros else.
    """
    groups = own.groups if isinstance(own, nn.Conv2d) else 1
    places = wanted.shape[2:].numel()
    every = -(-len(shown) * places // ROWS)
    read, answers = own.weight[0].numel() + 1, len(own.weight) // groups
    squares, products = torch.zeros(groups, read, read).double(), torch.zeros(groups, read, answers).double()
    for some, theirs in zip(torch.split(shown, PART), torch.split(wanted, PART), strict=True):
        rows = _by_group(_read(own, some)[::every], groups)
        rows = functional.pad(rows, (0, 1), value=float(biased))
        told = _by_group(_numbers(theirs)[::every], groups)
        squares += rows.transpose(1, 2) @ rows
        products += rows.transpose(1, 2) @ told
    count, sums, totals = squares[:, -1:, -1:].clamp_min(1), squares[:, :-1, -1:], products[:, -1:]
    squares = squares[:, :-1, :-1] - sums @ sums.transpose(1, 2) / count
    products = products[:, :-1] - sums @ totals / count
    ridge = RIDGE * squares.diagonal(dim1=1, dim2=2).mean().clamp_min(1e-12) * torch.eye(read - 1)
    weight = torch.linalg.solve(squares + ridge, products)
    bias = (totals - sums.transpose(1, 2) @ weight) / count
    return weight.transpose(1, 2).reshape(own.weight.shape).float(), bias.flatten().float()


def _read(own: nn.Conv2d | nn.Linear, shown: Tensor) -> Tensor:
    """What a layer reads for its answers, a row for each place of each image; of grouped ones group by group."""
    if isinstance(own, nn.Linear):
        return shown
    assert not isinstance(own.padding, str), "those are not like a teacher's"
    return _numbers(functional.unfold(shown, own.kernel_size, own.dilation, own.padding, own.stride))


def _numbers(maps: Tensor) -> Tensor:
    """Rows `[N * P, C]` of `[N, C, ...]`: image by image, place by place."""
    return maps.reshape(len(maps), maps.shape[1], -1).transpose(1, 2).flatten(0, 1)


def _by_group(rows: Tensor, groups: int) -> Tensor:
    """Rows `[R, G * M]` as `[G, R, M]`."""
    return rows.reshape(len(rows), groups, -1).transpose(0, 1)
