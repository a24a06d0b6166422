"""The benchmark: any algorithm, several seeds, fixed scenes and starts, scores that can be checked."""
