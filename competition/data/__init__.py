"""The competition's folder: image names, labels, images, folds, and what is wrong with them."""
