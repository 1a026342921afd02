"""The interface of every model, the published numbers of parameters, and the errors about invalid settings."""

import dataclasses
import subprocess
import sys

import pytest
import timm
import torch

import models
from models import integral
from models.hourglass import StackedHourglass
from models.integral import IntegralRegression, normalisation
from models.lifter import Lifter
from models.recipes import ThreeD

NAMES = models.names()
SMALL = [name for name in NAMES if name.endswith("-small")]
HEATMAP = [name for name in SMALL if hasattr(models.recipe(name), "decoder")]
NETWORKS = ["2dhg-small", "3dhg-small", "integral-small"]  # one model per network
J = 17


def random_batch(module: models.Module, batch: int) -> tuple[torch.Tensor, models.Target]:
    """Return noise images and poses within 800 mm; some joints lie outside the image."""
    generator = torch.Generator().manual_seed(0)
    size = module.spec.input_size
    pose_mm = 1600 * torch.rand(batch, J, 3, generator=generator) - 800
    pose_mm[:, 0] = 0
    pose2d_px = size * (1.2 * torch.rand(batch, J, 2, generator=generator) - 0.1)
    return torch.randn(batch, 3, size, size, generator=generator), models.Target(pose2d_px, pose_mm)


def create(name: str) -> models.Module:
    """Create a model with seed 0."""
    torch.manual_seed(0)
    return models.create(name)


def count_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_with_biases(module: torch.nn.Module) -> int:
    """Return the number of parameters if every convolution had a bias, as in the publications."""
    convolutions = [child for child in module.modules() if isinstance(child, torch.nn.Conv2d)]
    return count_parameters(module) + sum(child.out_channels for child in convolutions if child.bias is None)


def test_every_model_has_a_small_sibling() -> None:
    assert {"2dhg", "2dhg-decay", "3dhg", "3dhg-aug", "integral"} <= set(NAMES)
    assert [name for name in NAMES if not name.endswith("-small") and f"{name}-small" not in NAMES] == []


def test_importing_models_does_not_import_torch_or_timm() -> None:
    code = "import sys, models; models.recipe('3dhg'); sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", NAMES)
def test_spec_matches_the_recipe(name: str) -> None:
    recipe = models.recipe(name)
    with torch.device("meta"):
        spec = models.create(name).spec
    assert spec.input_size == recipe.input_size  # type: ignore[attr-defined]
    assert len(spec.mean) == len(spec.std) == 3
    assert min(spec.std) > 0
    assert spec.pose_mean_mm.shape == spec.pose_std_mm.shape == (J, 3)


@pytest.mark.parametrize("name", SMALL)
def test_outputs_and_losses_are_valid_for_batches_of_one_and_three(name: str) -> None:
    module = create(name)
    for training, batch in ((False, 1), (True, 1), (True, 3)):
        module.train(training)
        images, target = random_batch(module, batch)
        output = module(images)
        assert output.pose_mm.shape == (batch, J, 3)
        assert output.pose_mm.dtype == torch.float32
        assert bool((output.pose_mm[:, 0] == 0).all())
        losses = module.loss(output, target)
        assert all(value.dim() == 0 and bool(value.isfinite()) for value in losses.values())
        assert "total" in losses


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_decreases_over_20_steps_on_4_samples(name: str) -> None:
    module = create(name).train()
    images, target = random_batch(module, 4)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        loss = module.loss(module(images), target)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str) -> None:
    module = create(name).train()
    for value in module.parameters():
        if not bool(value.any()):  # a zero initial value blocks the gradient of earlier layers
            torch.nn.init.constant_(value, 0.1)
    images, target = random_batch(module, 4)
    module.loss(module(images), target)["total"].backward()
    gradients = {key: value.grad for key, value in module.named_parameters()}
    assert [key for key, value in gradients.items() if value is None or not bool(value.isfinite().all())] == []
    assert [key for key, value in gradients.items() if value is not None and not bool(value.any())] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_restores_the_same_predictions(name: str) -> None:
    first, second = create(name), models.create(name)
    first.set_pose_statistics(torch.randn(J, 3), torch.rand(J, 3))
    second.load_state_dict(first.state_dict())
    images, _ = random_batch(first, 2)
    torch.testing.assert_close(second.eval()(images).pose_mm, first.eval()(images).pose_mm, rtol=0, atol=0)
    assert torch.equal(second.spec.pose_mean_mm, first.spec.pose_mean_mm)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_and_channels_last_are_close_to_float32(name: str) -> None:
    module = create(name).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, target = random_batch(module, 4)
    torch.manual_seed(0)
    expected = module.loss(module(images), target)["total"]
    torch.manual_seed(0)  # the same dropout
    with torch.autocast("cpu", torch.bfloat16):
        output = module(images.contiguous(memory_format=torch.channels_last))
        total = module.loss(output, target)["total"]
    total.backward()
    assert total.dtype == torch.float32
    assert output.pose_mm.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=0.05, atol=0)
    assert all(bool(value.grad.isfinite().all()) for value in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_joints_far_outside_the_image_and_cube_give_finite_gradients(name: str) -> None:
    module = create(name).train()
    images, target = random_batch(module, 2)
    far = models.Target(target.pose2d_px + 1e4, target.pose_mm + 1e4)
    total = module.loss(module(images), far)["total"]
    total.backward()
    assert bool(total.isfinite())
    assert all(bool(value.grad.isfinite().all()) for value in module.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_pass_stores_nothing_on_the_module(name: str) -> None:
    module = create(name).eval()
    before = {key: set(vars(child)) for key, child in module.named_modules()}
    module(random_batch(module, 1)[0])
    assert {key: set(vars(child)) for key, child in module.named_modules()} == before


@pytest.mark.parametrize("name", HEATMAP)
def test_decoder_can_be_changed(name: str) -> None:
    module = create(name).eval()
    images, _ = random_batch(module, 1)
    poses = []
    for decoder in ("argmax", "dark", "local"):
        module.decoder = decoder  # type: ignore[assignment]
        assert module.decoder == decoder
        poses.append(module(images).pose_mm)
    assert not torch.equal(poses[0], poses[1])
    assert not torch.equal(poses[0], poses[2])
    with pytest.raises(ValueError, match="one of argmax, dark, local"):
        module.decoder = "quarter"  # type: ignore[assignment]
    assert module.decoder == "local"


def test_pose_statistics_may_be_zero_but_invalid_ones_raise() -> None:
    module = create("2dhg-small").train()
    module.set_pose_statistics(torch.zeros(J, 3), torch.zeros(J, 3))
    images, target = random_batch(module, 2)
    assert bool(module.loss(module(images), target)["total"].isfinite())
    for mean, std in (((J, 2), (J, 3)), ((J, 3), (J,))):
        with pytest.raises(ValueError, match="shape"):
            module.set_pose_statistics(torch.zeros(mean), torch.zeros(std))
    with pytest.raises(ValueError, match="at least 0"):
        module.set_pose_statistics(torch.zeros(J, 3), -torch.ones(J, 3))
    with pytest.raises(ValueError, match="finite"):
        module.set_pose_statistics(torch.full((J, 3), torch.nan), torch.ones(J, 3))


@pytest.mark.parametrize(("stacks", "millions"), [(1, 3.43), (2, 6.57), (8, 25.43)])
def test_stacked_hourglasses_have_the_published_number_of_parameters(stacks: int, millions: float) -> None:
    with torch.device("meta"):
        network = StackedHourglass(256, (16,) * stacks)  # MPII's 16 joints
    assert round(count_with_biases(network) / 1e6, 2) == millions


def test_coarse_to_fine_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        module = models.create("3dhg")  # 17 joints
    assert round(count_with_biases(module) / 1e6, 1) == 13.2


def test_lifter_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        lifter = Lifter(32, 48, 1024, 0.5)  # 16 joints in 2D and in 3D
    assert round(count_parameters(lifter) / 1e6, 1) == 4.3


def test_full_size_networks_predict_maps_of_64_pixels() -> None:
    with torch.device("meta"):
        images = torch.empty(2, 3, 256, 256)
        for name, shapes in (
            ("2dhg", [(2, J, 1, 64, 64)] * 8),
            ("3dhg", [(2, J, depth, 64, 64) for depth in (1, 2, 4, 64)]),
        ):
            scores = models.create(name).hourglass(images)  # type: ignore[operator]
            assert [tuple(score.unflatten(1, (J, -1)).shape) for score in scores] == shapes


def test_recipes_match_the_poster() -> None:
    def row(name: str) -> tuple[object, ...]:
        chosen = models.recipe(name)
        return chosen.optimizer, chosen.lr, chosen.schedule, chosen.batch, chosen.augment, chosen.epochs

    assert row("2dhg") == ("adam", 2.5e-4, "constant", 4, True, 2)
    assert row("2dhg-decay") == ("adam", 2.5e-4, "halve", 4, True, 2)
    assert row("3dhg") == ("adam", 2.5e-4, "constant", 4, False, 4)
    assert row("3dhg-aug") == ("adam", 2.5e-4, "halve", 4, True, 4)


@pytest.mark.parametrize("name", NAMES)
def test_recipes_are_frozen_and_their_settings_replaceable(name: str) -> None:
    recipe = models.recipe(name, lr=1, epochs=100)
    assert (recipe.lr, recipe.epochs) == (1, 100)
    assert type(recipe)(**dataclasses.asdict(recipe)) == recipe
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.lr = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("3dgh", {}, r"did you mean '3dhg'.*expected one of .*\b2dhg, "),
        ("", {}, r"expected one of .*\b2dhg, "),
        ("3dhg", {"sigmas": 1.0}, "did you mean 'sigma'.*expected one of epochs, "),
        ("3dhg", {"stacks": 4}, "unknown setting of 3dhg 'stacks'"),
        ("3dhg", {"lr": 0.0}, "lr must be above 0, but got lr=0.0"),
        ("3dhg", {"lr": float("nan")}, "lr must be finite"),
        ("3dhg", {"lr": "fast"}, "lr must be of type float"),
        ("3dhg", {"epochs": 1.5}, "epochs must be of type int"),
        ("3dhg", {"epochs": True}, "epochs must be of type int"),
        ("3dhg", {"epochs": 0}, "epochs must be at least 1"),
        ("3dhg", {"schedule": "step"}, "one of constant, halve, cosine"),
        ("3dhg", {"clip_norm": 0.0}, "clip_norm must be above 0 or unset"),
        ("3dhg", {"warmup_epochs": 5.0}, "warmup_epochs must be 0 to epochs=4"),
        ("3dhg", {"depths": (1, 4, 4, 64)}, "depths must be increasing"),
        ("3dhg", {"depths": ()}, "depths must be increasing"),
        ("3dhg", {"depths": [1, 64]}, "depths must be of type tuple"),
        ("3dhg", {"input_size": 100}, "input_size must be a positive multiple of 64"),
        ("3dhg", {"decoder": "quarter"}, "decoder must be one of argmax, dark, local"),
        ("2dhg", {"stacks": 0}, "stacks must be at least 1"),
        ("2dhg", {"lifter_dropout": 1.0}, "lifter_dropout must be at least 0 and under 1"),
        ("integral", {"bins": 1}, "bins must be at least 2"),
        ("integral", {"heatmap_weight": -0.1}, "heatmap_weight must be at least 0"),
        (
            "integral-small",
            {"backbone": "resnet51"},
            "backbone must be a model of timm .*nearest: .*resnet5.*'resnet51'",
        ),
    ],
)
def test_unknown_names_and_invalid_values_raise(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.create(name, **settings)


def test_unavailable_pretrained_weights_raise_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    create_model = timm.create_model

    def offline(name: str, pretrained: bool = False, **settings: object) -> object:
        if pretrained:
            raise OSError("no\nroute")
        return create_model(name, **settings)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RuntimeError, match=r"\Aweights of backbone resnet18 couldn't be loaded: no route; .*\Z"):
        models.create("integral-small", backbone="resnet18", pretrained=True)


@pytest.mark.parametrize("backbone", ["convnext_tiny", "hrnet_w18_small", "swin_tiny_patch4_window7_224"])
def test_backbones_give_the_volume_and_train_all_unfrozen_weights(backbone: str) -> None:
    """HRNet has branches that are not used; Swin has channels-last features and a fixed image size."""
    with torch.device("meta"):
        module = models.create("integral", backbone=backbone)
        volume = IntegralRegression.volume(module, torch.empty(2, 3, 256, 256))  # type: ignore[arg-type]
    assert volume.shape == (2, J, 64, 64, 64)
    torch.autograd.backward(volume.sum())
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert len(trained) > 100
    assert all(parameter.grad is not None for parameter in trained)


IMAGENET, HALF, CLIP = (0.485, 0.456, 0.406), (0.5, 0.5, 0.5), (0.48145466, 0.4578275, 0.40821073)
NORMALISATIONS = {
    "resnet18": (IMAGENET, (0.229, 0.224, 0.225)),
    "test_resnet": (HALF, HALF),  # of integral-small
    "resnetv2_50": (HALF, HALF),
    "inception_v4": (HALF, HALF),
    "mobilenetv3_large_100.miil_in21k": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "convnext_base.clip_laion2b": (CLIP, (0.26862954, 0.26130258, 0.27577711)),
}


@pytest.mark.parametrize("backbone", NORMALISATIONS)
def test_images_are_normalised_as_the_backbone_expects(backbone: str) -> None:
    assert normalisation(backbone) == NORMALISATIONS[backbone]
    with torch.device("meta"):
        spec = models.create("integral", backbone=backbone, input_size=256).spec
    assert (spec.mean, spec.std) == NORMALISATIONS[backbone]


def test_heatmap_networks_use_the_normalisation_of_imagenet() -> None:
    for name in HEATMAP:
        assert create(name).spec.mean == IMAGENET


def test_saved_weights_keep_their_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with another version of timm; files of earlier versions contain none, and were trained with ImageNet's."""
    module = create("integral-small")
    weights = module.state_dict()
    monkeypatch.setattr(integral, "normalisation", lambda _: (CLIP, CLIP))
    later, earlier = create("integral-small"), create("integral-small")
    assert later.spec.mean == CLIP
    later.load_state_dict(weights)
    assert (later.spec.mean, later.spec.std) == (module.spec.mean, module.spec.std) == (HALF, HALF)
    del weights["normalisation"]
    earlier.load_state_dict(weights)
    assert earlier.spec.mean == pytest.approx(IMAGENET)
    assert earlier.spec.std == pytest.approx((0.229, 0.224, 0.225))


def test_backbone_without_the_stride_or_for_other_image_sizes_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"vit_small_patch16_224 must have features at stride 32"):
        models.create("integral", backbone="vit_small_patch16_224")
    create_model = timm.create_model

    def fixed_size(name: str, **settings: object) -> torch.nn.Module:
        backbone = create_model(name, **settings)
        backbone.forward = lambda images: images[:, :, :224, :224].view(images.shape[0], 3, 14, 16, 14, 16)
        return backbone

    monkeypatch.setattr(timm, "create_model", fixed_size)
    with pytest.raises(ValueError, match=r"\Abackbone resnet18 .*96 pixels.*: shape .+\Z"):
        models.create("integral", backbone="resnet18", input_size=96)


@pytest.mark.parametrize("name", ["2dhg", "3dhg"])
def test_stacks_are_separate_and_identical_regions_to_compile(name: str) -> None:
    with torch.device("meta"):
        module = models.create(name)
    _, *stacks = module.regions
    assert len(stacks) == (8 if name == "2dhg" else 4)
    shapes = [{key: value.shape for key, value in stack.state_dict().items()} for stack in stacks]
    assert all(shape == shapes[0] for shape in shapes)
    inside = {id(parameter) for region in module.regions for parameter in region.parameters()}
    outside = [parameter for parameter in module.hourglass.parameters() if id(parameter) not in inside]
    assert len(outside) == 4 * len(stacks) - 2  # 1x1 convolutions: scores, and re-injection in all stacks but the last


def test_eight_stacks_are_a_valid_setting() -> None:
    recipe = models.recipe("3dhg", depths=(1, 2, 4, 8, 16, 32, 48, 64))
    assert isinstance(recipe, ThreeD)
    assert len(recipe.depths) == 8


def test_the_loss_of_integral_is_the_distance_plus_the_weighted_cross_entropy_in_the_cube() -> None:
    module = models.create("integral-small", heatmap_weight=0.25)
    images, target = random_batch(module, 2)
    output = module(images)
    losses = module.loss(output, target)
    torch.testing.assert_close(losses["total"], losses["l1"] + 0.25 * losses["heatmap"])
    right = models.Output(target.pose_mm, output.maps)
    assert module.loss(right, target)["l1"] == 0
    assert module.loss(right, target)["heatmap"] == losses["heatmap"]
    index = (target.pose_mm / 2000 + 0.5) * 16 - 0.5  # [B,17,3] voxels of 16 bins
    sharp = [torch.softmax(-((torch.arange(16.0) - index[..., axis, None]) ** 2) / 8, 2) for axis in range(3)]
    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        maps = tuple(sharp[axis] for axis in order)
        entropy = module.loss(models.Output(target.pose_mm, maps), target)["heatmap"]
        assert (entropy < losses["heatmap"]) == (order == (0, 1, 2))
