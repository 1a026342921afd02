"""The command line: its flags, what each subcommand calls, and the tables that it prints."""
