"""The public functions for notebooks and scripts:

    from competition.notebook import blend, make_folds, mpjpe, read_labels, read_submission, write_submission

Poses are [N, 17, 3] in mm, in camera axes (x right, y down, z away), relative to the pelvis, and joined on Id, never by
position. Errors that the user can fix are a UserError with a message of one line. Only `create` imports torch.
"""

from competition.blending.blend import BlendResult, blend, blend_dataset
from competition.blending.csv_blend import blend_files
from competition.common.errors import UserError
from competition.common.imports import importing_models
from competition.common.metrics import joint_errors, mpjpe, mpjpe_joint
from competition.common.pose_csv import Poses
from competition.common.pose_csv import read_poses as read_submission
from competition.common.pose_csv import write_poses as write_submission
from competition.common.skeleton import AXES, BONES, JOINTS
from competition.data.dataset import Dataset
from competition.data.folds import make_folds, read_folds, write_folds
from competition.data.labels import Labels, TestSet, read_labels, read_test
from competition.data.names import parse_name
from competition.leaderboard.score import score
from competition.runs.candidates import Candidate, candidates, select
from competition.runs.folders import read_valid, write_valid

with importing_models():
    from models import create, names, recipe

__all__ = [
    "AXES",
    "BONES",
    "JOINTS",
    "BlendResult",
    "Candidate",
    "Dataset",
    "Labels",
    "Poses",
    "TestSet",
    "UserError",
    "blend",
    "blend_dataset",
    "blend_files",
    "candidates",
    "create",
    "joint_errors",
    "make_folds",
    "mpjpe",
    "mpjpe_joint",
    "names",
    "parse_name",
    "read_folds",
    "read_labels",
    "read_submission",
    "read_test",
    "read_valid",
    "recipe",
    "score",
    "select",
    "write_folds",
    "write_submission",
    "write_valid",
]
