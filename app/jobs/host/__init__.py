"""Cores, memory and devices of the trainer's machine."""
