"""The hourglasses' layers: the GPU kernels against PyTorch in float64, and the choice between the two.

Without a GPU the kernels run in Triton's interpreter (see tests/conftest.py).
"""

import copy
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import models
from competition.common.errors import UserError
from competition.training.build import check_compile
from models import layers
from models.hourglass import CastWeights, StackedHourglass
from models.layers import BatchNormReLU, add_upsampled, max_pool, shape_fits

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(3, 24, 4, 6), (5, 16, 8, 10), (7, 40, 16, 14), (1, 8, 64, 36), (3, 64, 32, 26)]  # the last two: many groups
ERROR = {torch.float32: 1e-5, torch.bfloat16: 4e-3}  # of the norm of a result

Function = Callable[..., tuple[Tensor, ...]]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the kernels wherever the shape fits."""
    monkeypatch.setattr(layers, "fits", shape_fits)


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return random values in channels_last; every channel has another mean and deviation."""
    random = torch.Generator().manual_seed(seed)
    scale, shift = (torch.randn(1, shape[1], 1, 1, generator=random) for _ in range(2))
    x = (scale.abs() + 0.1) * torch.randn(shape, generator=random) + 3 * shift
    return x.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


def norm_relu(channels: int) -> BatchNormReLU:
    torch.manual_seed(0)
    module = BatchNormReLU(channels).to(DEVICE)
    nn.init.uniform_(module[0].weight, -0.5, 1.5)
    nn.init.normal_(module[0].bias)
    return module


def evaluate(function: Function, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Return a function's results and the gradients of its inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    found = function(*leaves)
    return [*(y.detach() for y in found), *torch.autograd.grad(found, leaves, gradients)]


def assert_close(found: Sequence[Tensor], expected: Sequence[Tensor], error: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert float((one.double() - other).norm()) <= error * float(other.norm())


def check(function: Function, plain: Function, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Assert that a function's results and gradients are those of the plain one in float64."""
    found = evaluate(function, inputs, gradients)
    expected = evaluate(plain, [x.double() for x in inputs], [x.double() for x in gradients])
    assert all(one.dtype == inputs[0].dtype for one in found)
    assert_close(found, expected, ERROR[inputs[0].dtype])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_and_relu_are_those_of_pytorch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    module = norm_relu(shape[1])
    plain = copy.deepcopy(module).double()
    for seed in range(2):  # the running statistics take two steps
        inputs, gradients = [values(shape, dtype, seed)], [values(shape, dtype, seed + 10) for _ in range(2)]
        check(module.with_input, lambda x: (plain(x), x * 1), inputs, gradients)
    for name, expected in plain.state_dict().items():
        torch.testing.assert_close(module.state_dict()[name].to(expected), expected, rtol=1e-5, atol=1e-6)
    assert int(module[0].num_batches_tracked) == 2
    module(inputs[0]).backward(gradients[0])  # the gradients of weight and bias
    plain(inputs[0].double()).backward(gradients[0].double())
    found, expected = ([value.grad for value in one.parameters()] for one in (module, plain))
    assert_close(found, expected, ERROR[dtype])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(3, 16, 8, 4), (3, 16, 32, 24)])
def test_statistics_of_channels_far_from_zero_keep_their_digits(shape: tuple[int, ...]) -> None:
    module, x = norm_relu(shape[1]), values(shape) + 1e4
    module[0].momentum = 1.0
    module(x)
    torch.testing.assert_close(module[0].running_var.double(), x.double().var((0, 2, 3)), rtol=1e-4, atol=0)
    torch.testing.assert_close(module[0].running_mean.double(), x.double().mean((0, 2, 3)), rtol=1e-7, atol=0)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(3, 16, 8, 4), (3, 16, 32, 24)])
def test_the_same_input_gives_the_same_bits(shape: tuple[int, ...]) -> None:
    module, x, dy = norm_relu(shape[1]), values(shape), values(shape, seed=1)
    runs = [evaluate(copy.deepcopy(module).with_input, [x], [dy, dy]) for _ in range(3)]
    assert all(torch.equal(one, other) for run in runs for one, other in zip(run, runs[0], strict=True))


@pytest.mark.usefixtures("kernels")
def test_either_use_of_the_input_may_have_no_gradient() -> None:
    module, x, dy = norm_relu(16), values((3, 16, 8, 4)), values((3, 16, 8, 4), seed=1)
    plain = copy.deepcopy(module).double()
    check(lambda x: module.with_input(x)[:1], lambda x: (plain(x),), [x], [dy])
    check(lambda x: module.with_input(x)[1:], lambda x: (x * 1,), [x], [dy])
    check(lambda x: max_pool(x)[1:], lambda x: (F.max_pool2d(x, 2),), [x], [values((3, 16, 4, 2))])
    check(lambda x: max_pool(x)[:1], lambda x: (x * 1,), [x], [dy])


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize("shape", SHAPES)
def test_pooling_and_upsampling_are_those_of_pytorch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    half = (*shape[:2], shape[2] // 2, shape[3] // 2)
    x, low, dy = values(shape, dtype), values(half, dtype, seed=1), values(shape, dtype, seed=2)
    ties = x.round()
    for inputs in (x, ties):
        check(max_pool, lambda x: (x * 1, F.max_pool2d(x, 2)), [inputs], [dy, low])
    check(
        lambda x, low: (add_upsampled(x, low),),
        lambda x, low: (x + F.interpolate(low, scale_factor=2.0),),
        [x, low],
        [dy],
    )


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("shape", [(3, 16, 8, 4), (3, 16, 32, 24)])
def test_gradients_may_have_any_memory_format(shape: tuple[int, ...]) -> None:
    half = (*shape[:2], shape[2] // 2, shape[3] // 2)
    x, low, dy, skip = values(shape), values(half, seed=1), values(shape, seed=2), values(shape, seed=3)
    cases: list[tuple[Function, list[Tensor], list[Tensor]]] = [
        (norm_relu(shape[1]).with_input, [x], [dy, skip]),
        (max_pool, [x], [skip, low]),
        (lambda x, low: (add_upsampled(x, low),), [x, low], [dy]),
    ]
    for function, inputs, gradients in cases:
        expected = evaluate(function, inputs, gradients)
        found = evaluate(function, inputs, [gradient.contiguous() for gradient in gradients])
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.usefixtures("kernels")
def test_values_that_are_not_numbers_stay_visible() -> None:
    for shape in ((3, 16, 8, 4), (3, 16, 32, 24)):
        x = values(shape)
        x[1, 3, 2, 1] = torch.nan
        assert norm_relu(16)(x).isnan().any((0, 2, 3)).nonzero().flatten().tolist() == [3]
        assert max_pool(x)[1].isnan().nonzero().tolist() == [[1, 3, 1, 0]]


def test_a_network_with_the_kernels_is_as_accurate_as_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores, gradients and running statistics, relative to float64."""
    torch.manual_seed(0)
    network = StackedHourglass(32, (3, 5)).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for weight in network.parameters():
        if not bool(weight.any()) and weight.dim() == 4:
            nn.init.kaiming_normal_(weight)
    images, gradients = values((3, 3, 64, 64)), [values((3, count, 16, 16), seed=count) for count in (3, 5)]
    results = []
    for fits, dtype in (
        (lambda _: False, torch.float64),
        (lambda _: False, torch.float32),
        (shape_fits, torch.float32),
    ):
        monkeypatch.setattr(layers, "fits", fits)
        one = copy.deepcopy(network).to(dtype)
        scores = one(images.to(dtype))
        torch.autograd.backward(scores, [gradient.to(dtype) for gradient in gradients])
        parts = (scores, [value.grad for value in one.parameters()], [value for value in one.buffers() if value.dim()])
        results.append([torch.cat([tensor.detach().double().flatten() for tensor in part]) for part in parts])
    for exact, plain, found in zip(*results, strict=True):
        assert 0 < float((found - exact).norm()) <= 3 * float((plain - exact).norm())


@pytest.mark.parametrize(
    ("x", "fits"),
    [
        (values((2, 8, 4, 6)), True),
        (values((2, 320, 4, 6)).bfloat16(), True),
        (values((2, 8, 1, 1)), True),
        (values((1, 8, 1, 1)), False),  # a single value per channel
        (values((2, 12, 4, 6)), False),
        (values((2, 8, 4, 6)).double(), False),
        (values((2, 8, 4, 6)).half(), False),
        (values((2, 8, 4, 6)).contiguous(), False),
        (values((2, 16, 4, 6))[:, :8], False),
        (torch.empty(2**11, 256, 64, 64, device="meta").to(memory_format=torch.channels_last), False),
    ],
)
def test_other_types_and_shapes_take_the_path_of_pytorch(x: Tensor, fits: bool) -> None:
    assert shape_fits(x) is fits
    assert not layers.fits(x.cpu() if not x.is_meta else x)


def test_prediction_and_synchronised_batch_norms_take_the_path_of_pytorch(
    kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the kernels don't synchronise, and update the running statistics")

    module, x = norm_relu(16), values((3, 16, 8, 4))
    expected = module(x), copy.deepcopy(module).eval()(x)
    monkeypatch.setattr(layers.FusedBatchNormReLU, "apply", refuse)
    torch.testing.assert_close(module.eval()(x), expected[1])
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(module.train())
    assert [type(child) for child in converted] == [nn.SyncBatchNorm, nn.ReLU]
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", nn.BatchNorm2d.forward)  # needs GPUs and several processes
    torch.testing.assert_close(converted(x), expected[0], rtol=1e-5, atol=1e-5)
    for unusual in ({"momentum": None}, {"track_running_stats": False}):
        plain = norm_relu(16)
        for name, value in unusual.items():
            setattr(plain[0], name, value)
        plain(x)


def test_a_converted_network_has_no_other_batch_norms() -> None:
    network = nn.SyncBatchNorm.convert_sync_batchnorm(StackedHourglass(16, (3,)))
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    assert kinds == {nn.SyncBatchNorm}


def test_hourglasses_are_not_compiled_on_a_gpu() -> None:
    for name, device in (("3dhg-small", "cpu"), ("integral-small", "cuda")):
        check_compile(name, models.create(name), torch.device(device))
    with pytest.raises(UserError, match="--compile: 3dhg-small has kernels of its own"):
        check_compile("3dhg-small", models.create("3dhg-small"), torch.device("cuda"))


def test_weights_are_cast_together_and_their_gradients_back() -> None:
    weights = [torch.randn(size, size + 1, 3, 3, requires_grad=True) for size in (2, 5)]
    copies = CastWeights.apply(torch.bfloat16, *weights)
    gradients = [torch.randn_like(copy) for copy in copies]
    for weight, one, gradient in zip(weights, copies, gradients, strict=True):
        assert torch.equal(one, weight.bfloat16())
        assert one.dtype == gradient.dtype == torch.bfloat16
    torch.autograd.backward(copies, gradients)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert weight.grad is not None
        assert torch.equal(weight.grad, gradient.float())


def test_training_on_a_cpu_imports_no_kernels() -> None:
    code = """if True:
        import sys, torch, models
        model = models.create("3dhg-small").train()
        model.loss(model(torch.randn(2, 3, 64, 64)), models.Target(torch.zeros(2, 17, 2), torch.zeros(2, 17, 3)))
        sys.exit("models.kernels" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
