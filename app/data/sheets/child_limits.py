"""What the child process and its parent both know."""

MAX_ROWS = 1 << 20  # Rows of a sheet. Excel has no more.
NO_MEMORY = 3  # Exit status of the child if its memory does not suffice.
