"""What a model may be called."""

MODEL_NAME = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
MODEL_NAME_RULE = (
    "A model's name has 1 to 64 of a-z, 0-9, dot, underscore and hyphen, and begins and ends with a letter or digit."
)
