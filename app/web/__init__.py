"""HTTP: one short module per resource, its schemas beside its routes."""
