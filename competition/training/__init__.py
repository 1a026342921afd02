"""Train networks and predict with them: from a job to the files of its epochs."""
