"""The evidence behind the bundles' pages, one file a bundle. Run by hand from the repository's root; never shipped."""
