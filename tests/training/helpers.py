"""What tests of training share."""

from tests.helpers import TINY

TRAIN = ("train", *TINY, "--epochs", "1", "--fold", "0", "--augment")
DIVERGING = ("--optimizer", "sgd", "--lr", "1e30")  # refused only when training has begun
