"""One SELECT expression, in five dialects."""
