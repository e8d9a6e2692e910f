"""The experiments behind the bundles' pages, run by hand from the repository's root; not part of the wheel."""
