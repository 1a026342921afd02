"""The commands `train` and `predict`. Slow imports are inside the functions, so that --help answers at once."""

import logging

from competition.cli.hints import render
from competition.cli.options import PredictOptions, TrainOptions
from competition.common.errors import Command, FoldsError, UserError
from competition.common.workspace import Workspace

log = logging.getLogger(__name__)


def train(options: TrainOptions, workspace: Workspace) -> None:
    run = options.run or options.model
    workspace.run(run)
    if options.init is not None:
        workspace.existing_run(options.init)
    from competition.runs.candidates import write_submission
    from competition.runs.folders import FULL
    from competition.training.jobs import Job, open_data
    from competition.training.parallel import torchrun_rank, train_folds

    data = open_data(workspace)
    numbers = data.fold_numbers
    chosen: dict[str, list[int | str]] = {"all": [*numbers], FULL: [FULL]} | {str(k): [k] for k in numbers}
    if options.fold not in chosen:
        raise FoldsError(f"fold {options.fold}: expected {numbers[0]} to {numbers[-1]}, all or {FULL}")
    jobs = [
        Job(
            workspace=workspace,
            name=options.model,
            recipe=options.recipe,
            fold=fold,
            run=run,
            precision=options.precision,
            workers=options.workers,
            init=options.init,
            checkpoint_minutes=options.checkpoint_minutes,
            sync_batch_norm=options.sync_batch_norm,
            compile=options.compile,
        )
        for fold in chosen[options.fold]
    ]
    if torchrun_rank() is None:
        log.info(f"{run}: loading torch")
    train_folds(jobs, data, parallel=options.parallel, gpus=options.gpus)
    if torchrun_rank() is not None:
        return
    if options.fold == FULL:
        last = sorted(jobs[0].folder.glob("test_epoch*"))[-1]
        log.info(f"{run}: trained on all images, without validation; test poses of the last epoch: {last}")
    elif (written := write_submission(workspace.submissions, run, data.dataset.test.id)) is not None:
        file, best = written
        log.info(f"{run}: out-of-fold MPJPE {best.valid_mpjpe:.2f} mm at epoch {best.epoch}; test poses: {file}")
    board, blend = (render(Command(name), workspace) for name in ("board", "blend"))
    log.info(f"next: {board}, train another model, or {blend}")


def predict(options: PredictOptions, workspace: Workspace) -> None:
    workspace.existing_run(options.run)  # before slow imports
    if options.image is not None:
        _predict_photo(options, workspace)
        return
    if options.box is not None or options.out is not None:
        raise UserError("--box or --out without --image", fix="add the photo, such as --image photo.jpg")
    from competition.training.predict_run import predict_run

    folder, epoch, mpjpe = predict_run(
        workspace,
        options.run,
        epoch=options.epoch,
        decoder=options.decoder,
        flip=options.flip,
        workers=options.workers,
    )
    log.info(f"{folder}: out-of-fold MPJPE {mpjpe:.2f} mm, stored as epoch {epoch}")


def _predict_photo(options: PredictOptions, workspace: Workspace) -> None:
    assert options.image is not None
    if not options.image.is_file():
        raise UserError(f"--image: no such file: {options.image}")
    from competition.report.photo import write_photo
    from competition.training.photo import predict_photo

    found = predict_photo(
        workspace,
        options.run,
        options.image,
        box=options.box,
        epoch=options.epoch,
        decoder=options.decoder,
        flip=options.flip,
    )
    folder = options.out or workspace.run(options.run) / "photos"
    written = write_photo(folder, options.image, options.box, found.trained, found.crop, found.pose_px, found.pose_mm)
    log.info(f"predicted by {found.trained}")
    log.info("mm relative to the pelvis: x right, y down, z away; the distance to the camera is not estimated")
    log.info(f"joints: {written.table}; picture: {written.picture}; 3D view: {written.page}")
