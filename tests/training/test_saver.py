"""All processes end together, once the main process has saved."""

from unittest.mock import MagicMock

import pytest

from competition.common.stop import Stop
from competition.training.saver import Saver


def test_processes_wait_for_the_checkpoint_before_they_end():
    trainer = MagicMock()
    trainer.world.size = 2
    trainer.world.gather.return_value = [None, 15]  # the other process received SIGTERM
    with pytest.raises(SystemExit):
        Saver(trainer, Stop()).after_step()
    calls = [name for name, *_ in trainer.mock_calls]
    assert calls[-2:] == ["save", "world.barrier"]
