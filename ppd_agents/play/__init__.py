"""Playing a game oneself, in a window or a terminal, and recording an agent that plays."""
