"""One folder or script per table, figure or training; thin callers of the packages."""
