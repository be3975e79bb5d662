"""The command line. Its modules import only typer at the top: `atlasd --help` answers in 0.3 s."""
