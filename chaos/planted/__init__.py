"""The planted bugs, one module for each kind of damage. They import the service only when they are planted."""
