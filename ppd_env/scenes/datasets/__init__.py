"""Published sets of images with masks, each in the layout its publishers chose; one file per set."""
