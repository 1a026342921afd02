"""Arguments shared by the tests of training."""

from tests.helpers import TINY

TRAIN = ("train", *TINY, "--epochs", "1", "--fold", "0", "--augment")
DIVERGING = ("--optimizer", "sgd", "--lr", "1e30")  # the error occurs only during training
