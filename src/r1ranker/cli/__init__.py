"""The command line: `r1ranker COMMAND`. Each command's module imports what is heavy only when it runs."""
