"""Many rankers on many data sets from one TOML file: runs that resume, and one report."""
