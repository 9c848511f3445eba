"""pocketkube: a Kubernetes cluster that fits in one process tree (see ``docs/architecture.md``)."""
