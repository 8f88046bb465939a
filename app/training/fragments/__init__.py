"""Files that are summarised in parts, at the same time: by processes of this machine or by a Ray cluster.

Each fragment of the rows becomes a small summary, and summaries are merged. The result equals that of one pass.
"""
