"""The space of a study: declared and given ranges, the recipe's own values, conditions."""

from dataclasses import dataclass, fields, replace
from typing import Annotated

import pytest

import models
from competition.cli.search import parse_search
from competition.common.errors import UserError
from competition.runs.studies import Param
from competition.training.space import make_space, own_values, searchable, with_params
from models.recipes import Recipe, Setting

SMALL = models.recipe("3dhg-small")  # lr 4e-3, weight_decay 0, augmented lightly


@pytest.mark.parametrize("model", models.names())
def test_by_default_all_declared_settings_are_searched_and_the_own_values_are_in_the_space(model: str):
    recipe = models.recipe(model)
    space = make_space(recipe)
    assert {param.name.removeprefix("use_") for param in space} == set(searchable(recipe))
    assert {"lr", "schedule", "ema", "batch"} <= set(searchable(recipe))
    assert not {"epochs", "decoder", "pretrained"} & set(searchable(recipe))
    own = own_values(recipe, space)
    assert with_params(recipe, own) == recipe
    for param in space:
        value = own.get(param.name)
        if param.name in own and param.low is not None and param.high is not None:
            assert isinstance(value, int | float)
            assert param.low <= value <= param.high
        elif param.name in own:
            assert value in param.values


SPACES: dict[str, tuple[Recipe, str, list[Param]]] = {
    "declared range": (SMALL, "lr", [Param(name="lr", low=1e-5, high=1e-2, log=True)]),
    "declared values": (SMALL, "ema", [Param(name="ema", values=(None, 0.99, 0.999, 0.9995))]),
    "choices": (SMALL, "decoder", [Param(name="decoder", values=("argmax", "dark", "local"))]),
    "a switch of the recipe": (SMALL, "flip-test", [Param(name="flip_test", values=(False, True))]),
    "given range": (SMALL, "lr=1e-3:1e-2", [Param(name="lr", low=1e-3, high=1e-2, log=True)]),
    "given values": (SMALL, "channels=32/64", [Param(name="channels", values=(32, 64))]),
    "given range of whole numbers": (
        SMALL,
        "channels=32:64",
        [Param(name="channels", low=32, high=64, whole=True)],
    ),
    "none among the values": (SMALL, "ema=none/0.999", [Param(name="ema", values=(None, 0.999))]),
    "a range without the own value": (SMALL, "lr=1e-3:2e-3", [Param(name="lr", low=1e-3, high=4e-3, log=True)]),
    "values without the own one": (SMALL, "schedule=cosine/halve", [
        Param(name="schedule", values=("cosine", "halve", "constant")),
    ]),
    "0 isn't on a logarithmic scale": (SMALL, "weight_decay", [
        Param(name="use_weight_decay", values=(False, True)),
        Param(name="weight_decay", low=1e-5, high=0.1, log=True, needs="use_weight_decay"),
    ]),
    "none isn't in a range": (SMALL, "clip_norm=0.5:2", [
        Param(name="use_clip_norm", values=(False, True)),
        Param(name="clip_norm", low=0.5, high=2, needs="use_clip_norm"),
    ]),
    "a setting that needs another": (SMALL, "augmentation,augment", [
        Param(name="augment", values=(False, True)),
        Param(name="augmentation", values=("full", "light"), needs="augment"),
    ]),
    "a setting that needs another, which is on": (SMALL, "augmentation", [
        Param(name="augmentation", values=("full", "light")),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_the_space_has_the_chosen_settings(name: str):
    recipe, text, expected = SPACES[name]
    assert make_space(recipe, parse_search(text, recipe)) == expected


BAD = {
    "lrr": "unknown setting to search 'lrr': did you mean 'lr'? expected one of ",
    "ema,shedule": "unknown setting to search 'shedule': did you mean 'schedule'?",
    "lr=1e-2:1e-4": "the range is inverted: expected the lower end first, such as lr=0.0001:0.01",
    "lr=1e-2:1e-2": "the range is empty",
    "lr=a:b": "--search lr 'a': expected a number",
    "channels=1.5:2": "--search channels '1.5': expected a whole number",
    "channels=30:34": "channels must be a positive multiple of 4, but got channels=30",
    "lr=-1:1": "lr must be above 0, but got lr=-1.0",
    "lr=1e-3": "expected a range, such as 1:2, or values, such as 1/2",
    "lr=": "no range or values",
    "schedule=a:b": "expected different values, such as a/b",
    "schedule=cosine/cosine": "expected different values",
    "lr=1e-3/0.001": "--search lr=1e-3/0.001: expected different values",
    "schedule=cosine/step": "schedule must be one of constant, halve, cosine, but got schedule='step'",
    "augment=on/off": "expected only the name",
    "channels": "--search channels: no range is declared for it: give one, such as channels=32:64",
    "depths=1/2": "--search depths: lists of values can't be searched",
    "epochs": "all trials have the same number of epochs",
    "lr,lr": "lr is there twice",
    "": "a setting without a name",
}


@pytest.mark.parametrize("text", BAD)
def test_settings_that_cannot_be_searched_are_refused(text: str):
    with pytest.raises(UserError) as caught:
        make_space(SMALL, parse_search(text, SMALL))
    assert BAD[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_setting_without_effect_is_refused():
    plain = replace(SMALL, augment=False)
    with pytest.raises(UserError, match="augmentation: it is used only with augment=on, but augment is off"):
        make_space(plain, parse_search("augmentation", plain))


def test_an_inverted_range_beside_a_field_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Own(Recipe):
        width: Annotated[float, Setting(help="width of the network", tune=(2.0, 1.0))] = 1.0

    with pytest.raises(UserError, match=r"width=2:1: the range is inverted"):
        make_space(Own())


def test_settings_that_are_not_used_keep_the_own_values():
    space = make_space(SMALL, parse_search("weight_decay,augment,augmentation", SMALL))
    assert own_values(SMALL, space) == {"use_weight_decay": False, "augment": True, "augmentation": "light"}
    assert with_params(SMALL, {"use_weight_decay": True, "weight_decay": 0.01, "augment": False}) == replace(
        SMALL, weight_decay=0.01, augment=False
    )
    assert {field.name for field in fields(SMALL)} >= {param.name.removeprefix("use_") for param in space}
