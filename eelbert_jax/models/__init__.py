"""Models that come with the package, a folder each as `eelbert export --to=int8` writes it."""
