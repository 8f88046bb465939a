"""Constants that the child process and its parent share."""

MAX_ROWS = 1 << 20  # Rows of a sheet, the maximum of Excel.
NO_MEMORY = 3  # Exit status of the child if it runs out of memory.
