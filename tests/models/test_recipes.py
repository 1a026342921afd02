"""The declarations of settings: help texts, choices, and the ranges to search."""

from dataclasses import dataclass, fields

import pytest

import models
from models.recipes import Recipe, Setting, settings_of

NAMES = models.names()


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_declared(name: str) -> None:
    recipe = models.recipe(name)
    declared = settings_of(type(recipe))
    assert list(declared) == [field.name for field in fields(recipe)]
    for setting_name, (_, setting) in declared.items():
        assert len(setting.help.split()) > 1, setting_name
        assert setting.help != setting_name.replace("_", " "), setting_name
        assert setting.tune is None or not setting.tune_values, setting_name


@pytest.mark.parametrize("name", NAMES)
def test_values_to_search_are_valid(name: str) -> None:
    searched = 0
    for setting_name, (_, setting) in settings_of(type(models.recipe(name))).items():
        for value in setting.tune_values or setting.tune or setting.choices:
            assert getattr(models.recipe(name, **{setting_name: value}), setting_name) == value
            searched += 1
        if setting.tune is not None:
            low, high = setting.tune
            assert low < high
            assert not setting.log or low > 0
    assert searched > 20


def test_a_class_that_changes_a_default_inherits_the_declaration() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Own(Recipe):
        lr: float = 1e-2
        depth: int = 3

    declared = settings_of(Own)
    assert declared["lr"] == (float, settings_of(Recipe)["lr"][1])
    assert declared["depth"] == (int, Setting(help="depth"))
    with pytest.raises(ValueError, match=r"depth must be of type int, but got depth=1\.5"):
        Own(depth=1.5)  # type: ignore[arg-type]


def test_choices_are_checked_for_any_declared_setting() -> None:
    with pytest.raises(ValueError, match="decoder must be one of argmax, dark, local, but got decoder='drak'"):
        models.recipe("3dhg", decoder="drak")
    with pytest.raises(ValueError, match="schedule must be one of constant, halve, cosine"):
        models.recipe("3dhg", schedule="step")
