"""What scripts and notebooks see of the store and of the engine; `daemon.research` offers the names."""
