"""One module per subcommand, each with one plain `run(...)`: where a recipe or a command line meets the library."""
