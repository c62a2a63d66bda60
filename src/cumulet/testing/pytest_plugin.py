"""The pytest plugin that comes with the package: fixtures `cloud`, `admin`, `member`, `reader`."""
