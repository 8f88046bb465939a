"""What the machine offers the trainer: cores, memory, devices."""
