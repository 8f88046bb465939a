"""The operations of the client as plans, which the synchronous and the asynchronous client run."""
