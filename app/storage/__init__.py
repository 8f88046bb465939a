"""Files, locks, temporary storage and the memory budget."""
