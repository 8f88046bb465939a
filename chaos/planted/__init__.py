"""The planted bugs, by what they break. They import modules of the service when they are planted, and not before."""
