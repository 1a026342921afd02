"""The data folder: image names, labels, images, folds, and checks of them."""
