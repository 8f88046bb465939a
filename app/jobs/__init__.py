"""The durable queue of training jobs: submit, watch and cancel them, and run them in the trainer.

A web process uses `queue` and `dbos_store`, and the trainer `worker` and `dbos_worker`. This package imports none of
them, because DBOS takes time to load.
"""
