"""The command line: flags, one handler per subcommand, and the printed tables."""
