"""The records in a fold's folder are written in the documented form and read leniently."""

import json
from pathlib import Path

import pytest

from competition.common.errors import UserError
from competition.common.files import sha256_json
from competition.runs.record import (
    LogRow,
    RunConfig,
    append_log,
    manifest,
    read_config,
    read_done,
    read_log,
    write_config,
    write_done,
)

CONFIG = RunConfig(recipe="3dhg", settings={"lr": 1e-3, "depths": [1, 8], "ema": None, "augment": True}, fold=1, seed=0)
TRAINED = LogRow(
    epoch=1, lr=0.1, train_loss=2.0, images_per_second=3.0, valid_mpjpe=None, valid_mpjpe_joint=None, seconds=1.5
)
KEYS = ["epoch", "lr", "train_loss", "images_per_second", "valid_mpjpe", "valid_mpjpe_joint", "seconds"]


def test_a_configuration_is_read_as_it_was_written(tmp_path: Path):
    write_config(tmp_path, CONFIG)
    assert read_config(tmp_path) == CONFIG
    keys = list(json.loads((tmp_path / "config.json").read_text()))
    assert keys[:5] == ["format", "recipe", "settings", "fold", "seed"]
    assert keys[-2:] == ["threads", "processes"]  # predicted_from only where there is one


def test_a_configuration_of_an_earlier_version_or_with_further_keys_is_read(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"recipe": "own", "colour": "red"}')
    assert read_config(tmp_path) == RunConfig(recipe="own")
    assert read_config(tmp_path).precision == "auto"


@pytest.mark.parametrize("content", ['{"settings": [1]}', '{"recipe": 3}', '{"settings": {"lr": {}}}', '{"format": 2}'])
def test_a_configuration_of_wrong_types_or_a_later_format_is_rejected_in_one_line(tmp_path: Path, content: str):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_rows_of_the_log_have_all_keys_of_training_or_only_those_of_prediction(tmp_path: Path):
    append_log(tmp_path, LogRow(epoch=3, valid_mpjpe=60.0))
    append_log(tmp_path, TRAINED)  # drops the row of the later epoch
    append_log(tmp_path, LogRow(epoch=2, valid_mpjpe=60.0))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [KEYS, ["epoch", "valid_mpjpe"]]
    assert read_log(tmp_path) == [TRAINED, LogRow(epoch=2, valid_mpjpe=60.0)]


def test_the_manifest_hashes_the_log_as_it_is_in_the_file(tmp_path: Path):
    write_config(tmp_path, CONFIG)
    append_log(tmp_path, TRAINED)
    done = write_done(tmp_path)
    assert read_done(tmp_path) == done == manifest(tmp_path)
    assert done.log_sha256 == sha256_json([json.loads((tmp_path / "log.jsonl").read_text())])
    assert list(done.files) == ["config.json"]
