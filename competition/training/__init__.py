"""Training networks and predicting with them: from a job to the files of its epochs."""
