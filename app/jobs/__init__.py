"""The durable queue of training jobs: submit, watch, cancel; and the job itself, run by the trainer.

The web process uses `queue` alone, the training process `engine`. Neither is imported here: DBOS takes time to load.
"""
