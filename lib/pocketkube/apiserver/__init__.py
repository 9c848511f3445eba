"""The API server: what kubectl and every other client talk to."""
