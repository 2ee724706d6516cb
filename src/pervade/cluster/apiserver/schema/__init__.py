"""What objects look like: type trees of built-in kinds, checks of fields against them, OpenAPI documents."""
