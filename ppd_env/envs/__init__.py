"""The Gymnasium, vector, AEC and parallel environments: thin shells over the batched games."""
