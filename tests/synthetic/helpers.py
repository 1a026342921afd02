"""Size and seed of the competition that these tests generate."""

N, N_TEST, SEED = 24, 8, 3
