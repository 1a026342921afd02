"""When a training is saved: at the end of an epoch, when a checkpoint is due, and when a signal asks it to stop."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from competition.common.stop import Stop
from competition.training.trainer import Trainer


class Saver:
    """Saves a trainer, and ends the process when a signal has asked for it."""

    def __init__(self, trainer: Trainer, stop: Stop) -> None:
        self.trainer = trainer
        self.stop = stop
        self.saved = time.monotonic()

    def save(self, *, best: bool = False) -> None:
        """Save the trainer now."""
        self.trainer.save(best=best)
        self.saved = time.monotonic()

    def after_step(self) -> None:
        """Save and stop if a signal has arrived in any process; save if a checkpoint is due.

        Several processes ask each other only at checks, and are saved by the main process.
        """
        trainer = self.trainer
        if trainer.world.size > 1 and not trainer.at_check:
            return
        signals = [number for number in trainer.world.gather(self.stop.signal) if number is not None]
        if signals:
            self.stop.request(signals[0])
            trainer.save()
            trainer.world.barrier()  # the launcher ends all processes when the first one ends
            self.stop.raise_requested()
        due = time.monotonic() - self.saved > 60 * trainer.job.checkpoint_minutes
        if due and trainer.step < trainer.steps:
            self.save()

    @contextmanager
    def while_waiting(self) -> Iterator[None]:
        """Save and stop at once if a signal arrives in this block, which waits for a batch.

        The launcher ends several processes, in which another may wait for this one.
        """
        if self.trainer.world.size > 1:
            yield
            return
        try:
            with self.stop.waiting():
                yield
        except (SystemExit, KeyboardInterrupt):
            if self.trainer.step:  # otherwise the last checkpoint is complete
                self.trainer.save()
            raise

    def while_predicting(self) -> None:
        """Save and stop if a signal has arrived; several processes predict to the end."""
        if self.stop.signal is not None and self.trainer.world.size == 1:
            self.trainer.save()
            self.stop.raise_requested()
