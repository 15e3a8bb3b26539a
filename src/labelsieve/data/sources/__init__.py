"""Sources on disk and in memory: folders, tables, feature files, and the rules for paths, columns and splits."""
