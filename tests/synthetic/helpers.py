"""The size and the seed of the competition that these tests make."""

N, N_TEST, SEED = 24, 8, 3
