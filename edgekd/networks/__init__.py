"""Students and generators."""
