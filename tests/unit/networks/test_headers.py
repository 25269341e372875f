"""Students with a header for every teacher: over every trunk, of every size, as the authors have them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekd import networks
from edgekd.errors import BadSetting
from edgekd.networks.headers import Headers, MultiHeader, SharedHeader, _resizing

KINDS = ("shared", "plain")


def student(name: str, kind: str, *, shape=(1, 28, 28), classes=7, width=0.25, count=3) -> MultiHeader:
    return networks.build_student(name, width, shape, classes, headers=Headers(kind, count))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", networks.STUDENTS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48), (1, 33, 45)])
def test_every_trunk_takes_headers_at_every_image_size(name, kind, shape):
    network = student(name, kind, shape=shape)
    images = torch.rand(2, *shape)
    logits, features = network(images), network.eval().each(images)
    assert logits.shape == (2, 7)
    assert features[0].shape == (2, 3, 7)
    assert features[1].shape == (2, 3, network.features)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", networks.STUDENTS)
def test_every_parameter_learns(name, kind):
    """Nothing is counted, stored or exported that the headers do not use."""
    network = student(name, kind)
    sum(part.square().sum() for part in network.each(torch.randn(4, 1, 28, 28))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_encoders_are_the_authors_on_a_resnet18():
    """nets/mhresnet8x.py: SepConv 64-128, 256-256, 512-512, 1024-512 for each header, stride 2, then 512-K."""
    network = student("resnet18", "shared", shape=(3, 32, 32), classes=100, width=1.0, count=1)

    def separable(inputs, outputs):
        return 2 * 9 * inputs + inputs * inputs + 2 * inputs + inputs * outputs + 2 * outputs

    encoders = sum(separable(*pair) for pair in ((64, 128), (256, 256), (512, 512), (1024, 512)))
    assert networks.parameters(network.headers[0]) == encoders
    trunk = networks.parameters(networks.build_student("resnet18", 1.0, (3, 32, 32), 100)) - 51_300
    assert networks.parameters(network) == trunk + encoders + 51_300
    strides = [encoder[0].stride for encoder in network.headers[0].encoders]
    assert strides == [(2, 2)] * 4


def test_the_tiny_lenet_with_plain_headers_is_the_published_one():
    """MHLeNet5Half of pytorch-CDFKD: 3,483 parameters, which the paper gives as 3.5 K."""
    assert networks.parameters(student("lenet5-tiny", "plain", classes=10, width=0.5)) == 3483
    assert networks.parameters(networks.build_student("lenet5-tiny", 1.0, (1, 32, 32), 10)) == 8456


def test_a_header_reads_stage_by_stage():
    header = SharedHeader([(2, 8, 8), (3, 4, 4)]).eval()
    stages = [torch.randn(5, 2, 8, 8), torch.randn(5, 3, 4, 4)]
    first = header.encoders[0](stages[0])
    assert first.shape == (5, 3, 4, 4)
    expected = header.encoders[1](torch.cat([stages[1], first], dim=1))
    assert expected.shape == (5, 3, 2, 2)
    torch.testing.assert_close(header(stages), expected.mean(dim=(2, 3)))


@pytest.mark.parametrize("before", range(1, 40))
def test_encoders_reach_any_smaller_size_and_see_every_pixel(before):
    for after in range(1, before + 1):
        kernel, stride, padding = _resizing(before, after)
        pixels = torch.ones(1, 1, before, requires_grad=True)
        out = functional.conv1d(pixels, torch.ones(1, 1, kernel), stride=stride, padding=padding)
        assert out.shape[2] == after
        out.sum().backward()
        assert (pixels.grad > 0).all()


def test_headers_are_joined_by_their_mean_or_by_a_softmax_of_scores():
    network, logits = student("cnn-small", "plain", classes=3), torch.randn(5, 3, 3)
    torch.testing.assert_close(network.joined(logits), logits.mean(dim=1))
    network.scorer = nn.Linear(3, 1)
    scores = (logits * network.scorer.weight).sum(dim=2) + network.scorer.bias
    weights = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    expected = sum(weights[:, k, None] * logits[:, k] for k in range(3))
    torch.testing.assert_close(network.joined(logits), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_headers_that_are_not_kept_are_gone(kind):
    network = student("cnn-small", kind).eval()
    images, before = torch.rand(2, 1, 28, 28), networks.parameters(network)
    whole = network.each(images)[0]
    network.keep([2, 0])
    torch.testing.assert_close(network(images), (whole[:, 2] + whole[:, 0]) / 2)
    assert networks.parameters(network) < before


def test_what_has_no_stages_is_refused():
    with pytest.raises(BadSetting, match=r"it has no stages; allowed: a network with stages\(images\)"):
        MultiHeader(nn.Flatten(), (1, 4, 4), 3, Headers("shared", 2))

    class Growing(nn.Module):
        def stages(self, images):
            return [images, functional.interpolate(images, scale_factor=2.0)]

    with pytest.raises(BadSetting, match="its stages grow"):
        MultiHeader(Growing(), (1, 4, 4), 3, Headers("shared", 2))


def test_answers_per_pixel_have_no_headers():
    with pytest.raises(BadSetting, match="the teacher for every pixel"):
        networks.build_student("unet", 1.0, (1, 32, 32), 3, (32, 32), Headers("shared", 2))


class Stages(nn.Module):
    """A trunk of one's own: stages and nothing else."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)])

    def stages(self, images):
        first = self.layers[0](images)
        return [first, self.layers[1](first)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trunk_of_one_s_own_needs_stages_alone(kind):
    network = MultiHeader(Stages(), (1, 12, 12), 3, Headers(kind, 2))
    assert network(torch.rand(2, 1, 12, 12)).shape == (2, 3)
    assert network.features == 6


@pytest.mark.parametrize("kind", KINDS)
def test_auto_counts_the_headers(kind):
    name, width = networks.choose_student("auto", None, (3, 32, 32), 10, 400_000, headers=Headers(kind, 3))
    size = networks.parameters(networks.build_student(name, width, (3, 32, 32), 10, headers=Headers(kind, 3)))
    assert 0.2 * 400_000 < size <= 0.2525 * 400_000


def test_no_header_strides_a_convolution_of_one_pixel_over_few_channels():
    """oneDNN issue 6035, as for students."""
    for name in networks.STUDENTS:
        layers = student(name, "shared", shape=(1, 64, 64), width=0.1).modules()
        strided = (m for m in layers if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride != (1, 1))
        assert all(layer.in_channels >= 16 for layer in strided), name
